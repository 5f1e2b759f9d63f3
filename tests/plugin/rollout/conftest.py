"""A repository with a model that works, and runs about it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimton.core.files import write_text
from trimton.perf.hardware import describe
from trimton.perf.verdict import VariantVerdict, Verdict
from trimton.plugin.recorded import write_recorded
from trimton.plugin.repository import Repository, path_digest
from trimton.plugin.run_directory import RECORDED_FOLDER, VERDICT_NAME
from trimton.plugin.version_policy import served_versions

WIDTH = 128
CONFIG = f"""
backend: "onnxruntime"
max_batch_size: 8
input {{ name: "x" data_type: TYPE_FP32 dims: [ {WIDTH} ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ {WIDTH} ] }}
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
"""


def working_model(products: int, note: str = "") -> onnx.ModelProto:
    """``y = x`` after so many products with a rotation and its inverse, in a loop."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))[0]
    identity = np.eye(WIDTH, dtype=np.float32)
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["m", "turn"], ["turned"]),
            helper.make_node("MatMul", ["turned", "back"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "work",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m", TensorProto.FLOAT, [WIDTH, WIDTH]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [WIDTH, WIDTH]),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Loop", ["count", "", "start"], ["m"], body=body),
            helper.make_node("MatMul", ["x", "m"], ["y"]),
        ],
        "working",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", WIDTH])],
        [
            numpy_helper.from_array(np.array(products, np.int64), "count"),
            numpy_helper.from_array(identity, "start"),
            numpy_helper.from_array(rotation.astype(np.float32), "turn"),
            numpy_helper.from_array(rotation.T.astype(np.float32).copy(), "back"),
        ],
        doc_string=note,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def make_repository(folder: Path, extra: str = "") -> None:
    """Version 1 of the model ``net``; ``extra`` goes into its configuration."""
    (folder / "net" / "1").mkdir(parents=True)
    onnx.save(working_model(4), folder / "net" / "1" / "model.onnx")
    (folder / "net" / "config.pbtxt").write_text(CONFIG + extra)


def make_run(run: Path, repository: Path, products: int) -> Path:
    """A run whose verdict says pass, against what ``repository`` serves now."""
    variant = run / "variants" / "small"
    variant.mkdir(parents=True)
    onnx.save(working_model(products, note=run.name), variant / "model.onnx")
    x = np.random.default_rng(1).normal(size=(8, WIDTH)).astype(np.float32)
    write_recorded(run / RECORDED_FOLDER / "small.npz", {"x": x}, {"y": x})
    stage = {"result": {"config": {"backend": "onnxruntime", "max_batch_size": 8}}}
    write_text(run / "stages" / "serve-baseline.json", json.dumps(stage))
    model, digest = Repository(repository).model("net"), path_digest(variant)
    served = served_versions(model.config, model.versions)
    verdict = Verdict(
        model="net",
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
    return run


@pytest.fixture(scope="session")
def write_repository() -> Callable[..., None]:
    """Writes the repository into a folder."""
    return make_repository


@pytest.fixture(scope="session")
def write_run() -> Callable[[Path, Path, int], Path]:
    """Writes a run about a repository whose candidate does so many products."""
    return make_run
