"""A production repository and finished runs about its model, small enough for every test."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from trimton.core.files import write_text
from trimton.perf.hardware import describe
from trimton.perf.verdict import CheckOutcome, VariantVerdict, Verdict
from trimton.plugin.recorded import write_recorded
from trimton.plugin.repository import Repository, path_digest
from trimton.plugin.run_directory import RECORDED_FOLDER, VERDICT_NAME
from trimton.plugin.version_policy import served_versions

CONFIG = """\
# the answer to everything, times x
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
"""


def scaling_model(factor: float, note: str = "", batch: int | str = "N") -> onnx.ModelProto:
    """``y = factor * x`` for x [batch, 2]; ``note`` makes other bytes of the same model."""
    shape = [batch, 2]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "scaling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(np.float32(factor), "factor")],
        doc_string=note,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@dataclass(frozen=True)
class Shop:
    """A repository with one model, ``net``, and a place for runs."""

    folder: Path

    @property
    def repository(self) -> Path:
        return self.folder / "models"

    @property
    def model(self) -> Path:
        return self.repository / "net"

    @property
    def config(self) -> Path:
        return self.model / "config.pbtxt"

    def served(self) -> tuple[int, ...]:
        """The versions that a server would serve."""
        model = Repository(self.repository).model("net")
        return served_versions(model.config, model.versions)

    def run(
        self,
        name: str = "run",
        *,
        factor: float = 2.0,
        recorded_factor: float | None = None,
        outcome: CheckOutcome = "pass",
        baseline: int | None = None,
        model: str = "net",
        age_days: float = 0.0,
        settings: Mapping[str, Any] | None = None,
        spoil: bool = False,
        batch: int | str = "N",
    ) -> Path:
        """A finished run whose candidate multiplies by ``factor``; returns its directory.

        ``spoil``: its file is no model. ``batch`` is the first dimension of its input.
        ``baseline`` is the version it was measured against, by default the one that is served.
        """
        run = self.folder / "runs" / name
        variant = run / "variants" / "small"
        variant.mkdir(parents=True)
        onnx.save(scaling_model(factor, name, batch), variant / "model.onnx")
        if spoil:
            (variant / "model.onnx").write_bytes(b"no model")
        x = np.arange(12, dtype=np.float32).reshape(6, 2)
        y = x * np.float32(recorded_factor if recorded_factor is not None else factor)
        write_recorded(run / RECORDED_FOLDER / "small.npz", {"x": x}, {"y": y})
        config = {"backend": "onnxruntime", "max_batch_size": 4, "name": "net.baseline"}
        stage = {"key": "", "result": {"config": config}}
        write_text(run / "stages" / "serve-baseline.json", json.dumps(stage))
        against = Repository(self.repository).model("net")
        digest = path_digest(variant)
        created = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=age_days)
        verdict = Verdict(
            model=model,
            outcome=outcome,
            candidate="small",
            baseline_digest=against.version_digest(baseline or self.served()[-1]),
            candidate_digest=digest,
            created=created.isoformat(timespec="seconds"),
            environment={"hardware": describe().to_json()},
            settings=dict(settings or {"policy": {"candidate": "small", "limits": {}}}),
            variants=(VariantVerdict(variant="small", digest=digest, outcome=outcome, checks=()),),
        )
        write_text(run / VERDICT_NAME, verdict.model_dump_json())
        return run


def make_shop(folder: Path) -> Shop:
    shop = Shop(folder)
    (shop.model / "1").mkdir(parents=True)
    onnx.save(scaling_model(2.0), shop.model / "1" / "model.onnx")
    shop.config.write_text(CONFIG)
    return shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A shop of the test's own."""
    return make_shop(tmp_path)


@pytest.fixture(scope="session")
def new_shop() -> Callable[[Path], Shop]:
    """Makes a shop in a folder."""
    return make_shop


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files below ``folder`` with their content, but for locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


@pytest.fixture(scope="session")
def content() -> Callable[[Path], dict[str, bytes]]:
    """The files of a folder with their content."""
    return snapshot
