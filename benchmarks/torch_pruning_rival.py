"""Torch-Pruning and distillation in PyTorch, in an environment of its own in the user's cache.

The environment has torch-pruning and sees all packages of the running one, so that both train with
the same torch.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

import onnx_ir as ir

from trimton.core.files import replacing_folder
from trimton.plugin.server.installation import home
from trimton.transforms.graph.load import load_model

REQUIREMENT = "torch-pruning==1.6.1"
_PROGRAM = Path(__file__).with_name("distill_programs") / "from_pytorch_source.py"


def pruned_and_distilled(
    teacher: Path, ratio: float, seconds: float, threads: int, *, with_labels: bool
) -> ir.Model:
    """The model that it makes of ``teacher`` at the share ``ratio`` of all channels."""
    with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
        out = Path(folder) / "student.onnx"
        options = ["--ratio", ratio, "--seconds", seconds, "--threads", threads]
        flags = ["--labels"] if with_labels else []
        command = [_python(), _PROGRAM, teacher, out, *options, *flags]
        subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr)
        return load_model(out)


def _python() -> Path:
    """The interpreter of the environment, which is made at the first call."""
    folder = home() / "rivals" / REQUIREMENT.replace("==", "-")
    python = folder / "bin" / "python"
    if not folder.is_dir():
        with replacing_folder(folder) as temporary:
            venv.create(temporary, with_pip=True)
            pip = [temporary / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps"]
            subprocess.run([*pip, "--disable-pip-version-check", REQUIREMENT], check=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    # Unlike a plain path, addsitedir follows the links of editable installs.
    line = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (packages / "running_environment.pth").write_text(line)
    return python
