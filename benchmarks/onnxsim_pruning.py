"""onnxsim's structured pruning, in an environment of its own in the user's cache."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import onnx_ir as ir

from trimton.core.files import replacing_folder
from trimton.plugin.server.installation import home

REQUIREMENT = "onnxsim==0.8.1"
# Runs there: the parameters that each of its entry points leaves in a model that still runs.
_PROGRAM = """
import math, sys
import onnx, onnxruntime, onnxsim

def parameters(model):
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    return sum(math.prod(t.dims) for t in model.graph.initializer if t.data_type in floats)

left = [parameters(onnx.load(sys.argv[1]))]
for name in ("apply_structured_pruning", "apply_structured_pruning_cpp"):
    try:
        pruned = getattr(onnxsim, name)(onnx.load(sys.argv[1]), 0.5)
        del pruned.graph.value_info[:]
        onnxruntime.InferenceSession(pruned.SerializeToString())
        left.append(parameters(pruned))
    except Exception as error:
        print(f"{name}: {error}", file=sys.stderr)
print(min(left))
"""


def parameters_left(model: ir.Model) -> int:
    """What is left at half sparsity, by the better of its two entry points."""
    with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
        source = Path(folder) / "model.onnx"
        ir.save(model, source)
        done = subprocess.run(
            [_python(), "-c", _PROGRAM, source], check=True, capture_output=True, text=True
        )
    return int(done.stdout.split()[-1])


def _python() -> Path:
    """The interpreter of the environment, which is made at the first call."""
    folder = home() / "rivals" / REQUIREMENT.replace("==", "-")
    if not folder.is_dir():
        with replacing_folder(folder) as temporary:
            packages = [REQUIREMENT, "onnxruntime==1.23.2"]
            pip = [temporary / "bin" / "python", "-m", "pip", "install", "--quiet"]
            subprocess.run([sys.executable, "-m", "venv", temporary], check=True)
            subprocess.run([*pip, "--disable-pip-version-check", *packages], check=True)
    return folder / "bin" / "python"
