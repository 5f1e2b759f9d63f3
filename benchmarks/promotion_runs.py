"""A production repository with a small model, and finished runs about it, for the benchmarks."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from trimton.core.files import write_text
from trimton.perf.hardware import describe
from trimton.perf.verdict import VariantVerdict, Verdict
from trimton.plugin.recorded import write_recorded
from trimton.plugin.repository import Repository, path_digest
from trimton.plugin.run_directory import RECORDED_FOLDER, VERDICT_NAME
from trimton.plugin.version_policy import served_versions

MODEL = "net"
CONFIG = """\
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
"""


def write_model(path: Path, note: str, ballast_bytes: int = 0, factor: float = 2.0) -> None:
    """``y = factor * x`` for x [N, 2], with bytes of its own and weights that nothing uses."""
    shape = ["N", 2]
    ballast = np.frombuffer(np.random.default_rng(len(note)).bytes(ballast_bytes), np.uint8)
    weights = {"factor": np.float32(factor), "ballast": ballast}
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "scaling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
        doc_string=note,
    )
    opset = [helper.make_opsetid("", 17)]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def write_repository(folder: Path, ballast_bytes: int = 0) -> Repository:
    """A repository with version 1 of the model."""
    write_model(folder / MODEL / "1" / "model.onnx", "original", ballast_bytes)
    (folder / MODEL / "config.pbtxt").write_text(CONFIG)
    return Repository(folder)


def write_passed_verdict(run: Path, repository: Repository, variant: Path) -> None:
    """Say in ``run`` that ``variant`` passed, against what ``repository`` serves now."""
    model, digest = repository.model(MODEL), path_digest(variant)
    served = served_versions(model.config, model.versions)
    verdict = Verdict(
        model=MODEL,
        outcome="pass",
        candidate="small",
        baseline_digest=model.version_digest(served[-1]),
        candidate_digest=digest,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        environment={"hardware": describe().to_json()},
        settings={"policy": {"candidate": "small", "limits": {}}},
        variants=(VariantVerdict(variant="small", digest=digest, outcome="pass", checks=()),),
    )
    write_text(run / VERDICT_NAME, verdict.model_dump_json())


def write_run(
    folder: Path, repository: Repository, ballast_bytes: int = 0, factor: float = 2.0
) -> Path:
    """A run that passed, against what ``repository`` serves now."""
    variant = folder / "variants" / "small"
    write_model(variant / "model.onnx", folder.name, ballast_bytes, factor)
    x = np.arange(64, dtype=np.float32).reshape(32, 2)
    write_recorded(folder / RECORDED_FOLDER / "small.npz", {"x": x}, {"y": np.float32(factor) * x})
    resolved = {"backend": "onnxruntime", "max_batch_size": 8, "name": MODEL}
    stage = {"key": "", "result": {"config": resolved}}
    write_text(folder / "stages" / "serve-baseline.json", json.dumps(stage))
    write_passed_verdict(folder, repository, variant)
    return folder
