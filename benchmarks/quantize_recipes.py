"""Ways to quantise a model, each in a process, and rivals in environments, of their own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from evaluation.evaluation import Evaluation

from trimton.core.files import replacing_folder
from trimton.plugin.server.installation import home

PROGRAMS = Path(__file__).parent / "quantize_programs"
_RUNTIME = "onnxruntime==1.32.0"
_ONNX = "onnx==1.23.2"
# Environment -> what is installed there. Trimton runs in the environment of the benchmark.
_ENVIRONMENTS = {
    "onnxruntime-1.32.0": (_RUNTIME, _ONNX, "sympy"),
    "nncf-3.4.0": ("nncf==3.4.0", _RUNTIME, _ONNX),
    "onnxsim-0.8.1": ("onnxsim==0.8.1", "onnxruntime==1.23.2"),
}
_MOST_SECONDS = 1800


@dataclass(frozen=True)
class Recipe:
    """A program, the environment that it runs in (None: this one) and what it is told."""

    name: str
    program: str
    environment: str | None
    options: Mapping[str, object]


def _onnxruntime(name: str, method: str, reduce_range: bool) -> Recipe:
    options = {"method": method, "reduce_range": reduce_range}
    return Recipe(name, "onnxruntime_static.py", "onnxruntime-1.32.0", options)


TRIMTON = Recipe("trimton", "trimton_static.py", None, {})
RIVALS = (
    _onnxruntime("ORT minmax", "MinMax", False),
    _onnxruntime("ORT minmax, 7 bits", "MinMax", True),
    _onnxruntime("ORT percentile", "Percentile", False),
    _onnxruntime("ORT percentile, 7 bits", "Percentile", True),
    _onnxruntime("ORT entropy", "Entropy", False),
    _onnxruntime("ORT entropy, 7 bits", "Entropy", True),
    Recipe("ORT dynamic", "onnxruntime_dynamic.py", "onnxruntime-1.32.0", {}),
    Recipe("NNCF", "nncf_static.py", "nncf-3.4.0", {}),
    Recipe("onnxsim", "onnxsim_static.py", "onnxsim-0.8.1", {}),
)


@dataclass(frozen=True)
class Made:
    """A quantised file, or the reason why there is none, and what making it took."""

    model: Path
    seconds: float = 0.0
    peak_bytes: int = 0
    failure: str | None = None


def make(recipe: Recipe, evaluation: Evaluation, *, again: bool = False) -> Made:
    """Quantise the model of ``evaluation``.

    What a rival made is kept in the user's cache, with its time and memory, and taken from there
    unless ``again``; Trimton's is made each time.
    """
    folder = home() / "rivals" / "quantised" / evaluation.name / _digest(recipe, evaluation)
    made = folder / "made.json"
    if made.exists() and recipe.environment is not None and not again:
        return Made(**{**json.loads(made.read_text()), "model": folder / "model.onnx"})
    with replacing_folder(folder) as temporary:
        result = _run(recipe, evaluation, temporary / "model.onnx")
        (temporary / "made.json").write_text(json.dumps({**asdict(result), "model": ""}))
    return Made(folder / "model.onnx", result.seconds, result.peak_bytes, result.failure)


def _run(recipe: Recipe, evaluation: Evaluation, result: Path) -> Made:
    python = sys.executable if recipe.environment is None else _python(recipe.environment)
    requests = evaluation.calibration
    with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
        calibration = Path(folder) / "calibration.npz"
        arrays = {name: np.stack([one[name] for one in requests]) for name in requests[0]}
        np.savez(calibration, allow_pickle=False, **arrays)
        command = [python, PROGRAMS / recipe.program, evaluation.model, calibration, result]
        try:
            done = subprocess.run(
                [*command, json.dumps(recipe.options)],
                cwd=folder,
                env={**os.environ, "TMPDIR": folder},
                capture_output=True,
                text=True,
                timeout=_MOST_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return Made(result, failure=f"not done after {_MOST_SECONDS} s")
    if done.returncode < 0:
        return Made(result, failure=f"ended by signal {-done.returncode} (9: no memory was left)")
    if done.returncode:
        return Made(result, failure=_reason(done.stderr.strip().splitlines()))
    return Made(result, **json.loads(done.stdout.splitlines()[-1]))


def _reason(lines: list[str]) -> str:
    """The message of a traceback: its last line, or where that says little the one before."""
    wordy = [line.strip() for line in lines if len(line.split()) > 2]
    return (wordy or lines or ["ended without a message"])[-1]


def _digest(recipe: Recipe, evaluation: Evaluation) -> str:
    program = (PROGRAMS / recipe.program).read_bytes()
    what = [recipe.name, recipe.options, _ENVIRONMENTS.get(recipe.environment or "", ())]
    parts = [json.dumps(what).encode(), program, evaluation.model.read_bytes()]
    parts += [a.tobytes() for request in evaluation.calibration for a in request.values()]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _python(environment: str) -> Path:
    """The interpreter of an environment, which is made at the first call."""
    folder = home() / "rivals" / environment
    if not folder.is_dir():
        with replacing_folder(folder) as temporary:
            subprocess.run([sys.executable, "-m", "venv", temporary], check=True)
            pip = [str(temporary / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            packages = _ENVIRONMENTS[environment]
            subprocess.run([*pip, "--disable-pip-version-check", *packages], check=True)
    return folder / "bin" / "python"
