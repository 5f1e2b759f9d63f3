"""A canary on a real server: a slower version is stopped and taken out, an equal one takes over."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimton.core.errors import EXIT_FAIL, InputError
from trimton.core.files import write_text
from trimton.perf.hardware import describe
from trimton.perf.targets.endpoint import Endpoint
from trimton.perf.verdict import VariantVerdict, Verdict
from trimton.plugin.promotion.confirm import RolledBackError
from trimton.plugin.promotion.journal import Journal
from trimton.plugin.promotion.promote import PromotionTerms, promote
from trimton.plugin.promotion.rollback import RollbackTerms, roll_back
from trimton.plugin.promotion.servers import RunningServer
from trimton.plugin.recorded import write_recorded
from trimton.plugin.repository import Repository, path_digest
from trimton.plugin.rollout.canary import Step
from trimton.plugin.rollout.plan import CanaryPlan
from trimton.plugin.rollout.trial import Trial
from trimton.plugin.run_directory import RECORDED_FOLDER, VERDICT_NAME
from trimton.plugin.server.installation import Installation
from trimton.plugin.server.process import TritonServer
from trimton.plugin.version_policy import served_versions

pytestmark = pytest.mark.server

WIDTH = 128
CONFIG = f"""
backend: "onnxruntime"
max_batch_size: 8
input {{ name: "x" data_type: TYPE_FP32 dims: [ {WIDTH} ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ {WIDTH} ] }}
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
"""
SHARES = (25.0, 100.0)


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


@dataclass(frozen=True)
class Site:
    """A repository with the model ``net``, its server, and runs about it."""

    folder: Path
    server: TritonServer

    @property
    def repository(self) -> Path:
        return self.folder / "models"

    def run(self, name: str, products: int) -> Path:
        """A run whose verdict says pass, whatever its candidate costs."""
        run = self.folder / "runs" / name
        variant = run / "variants" / "small"
        variant.mkdir(parents=True)
        onnx.save(working_model(products, note=name), variant / "model.onnx")
        x = np.random.default_rng(1).normal(size=(8, WIDTH)).astype(np.float32)
        write_recorded(run / RECORDED_FOLDER / "small.npz", {"x": x}, {"y": x})
        stage = {"result": {"config": {"backend": "onnxruntime", "max_batch_size": 8}}}
        write_text(run / "stages" / "serve-baseline.json", json.dumps(stage))
        model = Repository(self.repository).model("net")
        verdict = Verdict(
            model="net",
            outcome="pass",
            candidate="small",
            baseline_digest=model.version_digest(self.served()[-1]),
            candidate_digest=path_digest(variant),
            created=_now(),
            environment={"hardware": describe().to_json()},
            settings={"policy": {"candidate": "small", "limits": {}}},
            variants=(
                VariantVerdict(
                    variant="small", digest=path_digest(variant), outcome="pass", checks=()
                ),
            ),
        )
        write_text(run / VERDICT_NAME, verdict.model_dump_json())
        return run

    def served(self) -> tuple[int, ...]:
        model = Repository(self.repository).model("net")
        return served_versions(model.config, model.versions)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@pytest.fixture(scope="module")
def site(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server in mode explicit; the tests of this module follow each other on it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "models" / "net" / "1").mkdir(parents=True)
    onnx.save(working_model(4), folder / "models" / "net" / "1" / "model.onnx")
    (folder / "models" / "net" / "config.pbtxt").write_text(CONFIG)
    with TritonServer.start(
        folder / "models", load=["net"], log_file=folder / "log", installation=installation
    ) as server:
        yield Site(folder, server)


def canary(site: Site, on_step: Callable[[Step], None]) -> PromotionTerms:
    plan = CanaryPlan(SHARES, hold_s=1.0, rate_rps=400, max_regression_pct=100, patience=25)
    return PromotionTerms(servers=[RunningServer(site.server.http_url)], trial=Trial(plan, on_step))


def ready_versions(site: Site) -> set[str]:
    index = site.server.control.index()
    return {entry["version"] for entry in index if entry.get("state") == "READY"}


def test_a_slower_version_is_stopped_and_taken_out(site: Site) -> None:
    steps: list[Step] = []
    meanwhile: list[tuple[str, ...]] = []

    def look(step: Step) -> None:
        steps.append(step)
        with Endpoint(site.server.http_url) as endpoint:
            meanwhile.append(endpoint.model_metadata("net").versions)

    with pytest.raises(RolledBackError, match=r"stopped at 25 %: .* above 2x") as stopped:
        promote(site.run("slow", products=80), [site.repository], canary(site, look))

    assert stopped.value.exit_code == EXIT_FAIL
    assert [(step.share_pct, step.outcome) for step in steps] == [(25.0, "fail")]
    # A copy of the old version lay on top, for requests that name none.
    assert meanwhile == [("1", "2", "3")]
    assert site.served() == (1,)
    assert Repository(site.repository).model("net").versions == (1, 2)
    assert ready_versions(site) == {"1"}
    assert [c.action for c in Journal(site.repository).changes("net")] == ["pin", "canary", "undo"]


def test_an_equal_version_takes_over_and_can_be_rolled_back(site: Site) -> None:
    steps: list[Step] = []
    servers = [RunningServer(site.server.http_url)]

    done = promote(site.run("equal", products=4), [site.repository], canary(site, steps.append))

    assert [(step.share_pct, step.outcome) for step in steps] == [(25, "pass"), (100, "pass")]
    assert steps[1].rate_rps == pytest.approx(4 * steps[0].rate_rps)
    assert done.canary is not None
    assert done.canary.steps == tuple(steps)
    assert site.served() == (done.version,)
    assert ready_versions(site) == {str(done.version)}
    assert done.version in Repository(site.repository).model("net").versions
    assert not (site.repository / "net" / str(done.version + 1)).exists()

    roll_back([site.repository], "net", RollbackTerms(servers=servers))
    assert site.served() == (1,)
    assert ready_versions(site) == {"1"}


def test_a_canary_needs_a_server(site: Site) -> None:
    run = site.run("nowhere", products=4)
    before = site.served()

    with pytest.raises(InputError, match="--server"):
        promote(run, [site.repository], PromotionTerms(trial=Trial(CanaryPlan((100.0,)))))

    assert site.served() == before
