"""A canary of a version that is 10 % slower on purpose, and of one that is equal, on a real Triton.

The model multiplies matrices in a loop; the slower version does so more often, by so much that its
latency on the server is 10 % higher (calibrated first, and measured again at the end). Both are
promoted with ``--canary 5,25,100``: the slower one must be stopped and taken out again, the equal
one must take over. What clients get that name no version is asked for all the time.

    python benchmarks/canary.py [HOLD_SECONDS]
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from promotion_runs import write_passed_verdict

from trimton.core.errors import TrimtonError
from trimton.core.files import write_text
from trimton.perf.targets.endpoint import Endpoint
from trimton.plugin.promotion.confirm import RolledBackError
from trimton.plugin.promotion.promote import PromotionTerms, promote
from trimton.plugin.promotion.servers import RunningServer
from trimton.plugin.recorded import write_recorded
from trimton.plugin.repository import Repository
from trimton.plugin.rollout.canary import Step
from trimton.plugin.rollout.plan import CanaryPlan
from trimton.plugin.rollout.trial import Trial
from trimton.plugin.run_directory import RECORDED_FOLDER
from trimton.plugin.server.process import TritonServer
from trimton.plugin.version_policy import served_versions

MODEL = "net"
WIDTH = 64
PRODUCTS = 150
SLOWER = 1.10
SHARES = (5.0, 25.0, 100.0)
HOLD_S = 20.0
CONFIG = f"""
backend: "onnxruntime"
max_batch_size: 8
input {{ name: "x" data_type: TYPE_FP32 dims: [ {WIDTH} ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ {WIDTH} ] }}
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
"""


def working_model(products: int, note: str) -> onnx.ModelProto:
    """``y = x @ turn^products`` for x [N, WIDTH], with a rotation by so little that y is near x."""
    skew = np.random.default_rng(0).normal(size=(WIDTH, WIDTH)) * 1e-9
    turn = (np.eye(WIDTH) + skew - skew.T).astype(np.float32)
    square = [WIDTH, WIDTH]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["m", "turn"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "work",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m", TensorProto.FLOAT, square),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, square),
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
            numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32), "start"),
            numpy_helper.from_array(turn, "turn"),
        ],
        doc_string=note,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_model(repository: Path, name: str, products: int) -> None:
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    onnx.save(working_model(products, "original"), folder / "1" / "model.onnx")
    (folder / "config.pbtxt").write_text(CONFIG)


def write_run(run: Path, repository: Repository, products: int) -> Path:
    """A run that passed, whose candidate does ``products`` products."""
    variant = run / "variants" / "small"
    variant.mkdir(parents=True)
    onnx.save(working_model(products, run.name), variant / "model.onnx")
    x = np.random.default_rng(1).normal(size=(32, WIDTH)).astype(np.float32)
    write_recorded(run / RECORDED_FOLDER / "small.npz", {"x": x}, {"y": x})
    stage = {"result": {"config": {"backend": "onnxruntime", "max_batch_size": 8}}}
    write_text(run / "stages" / "serve-baseline.json", json.dumps(stage))
    write_passed_verdict(run, repository, variant)
    return run


def latencies_ms(server: TritonServer, models: Sequence[str], requests: int = 400) -> list[float]:
    """The median latency of each of ``models``, asked in turn."""
    x = np.zeros((1, WIDTH), np.float32)
    times: dict[str, list[float]] = {model: [] for model in models}
    with Endpoint(server.http_url) as endpoint:
        specs = endpoint.model_metadata(models[0]).inputs
        for _ in range(requests):
            for model in models:
                started = time.perf_counter()
                endpoint.infer(model, {"x": x}, specs)
                times[model].append(1e3 * (time.perf_counter() - started))
    return [median(times[model][requests // 10 :]) for model in models]


@dataclass
class Clients:
    """Requests without a version, as production's are: how many, and how many failed."""

    url: str
    requests: int = 0
    failed: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask ten times a second while the block runs."""
        thread = threading.Thread(target=self._ask)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _ask(self) -> None:
        x = np.zeros((1, WIDTH), np.float32)
        with Endpoint(self.url) as endpoint:
            specs = endpoint.model_metadata(MODEL).inputs
            while not self._stop.wait(0.1):
                self.requests += 1
                try:
                    endpoint.infer(MODEL, {"x": x}, specs)
                except TrimtonError as error:
                    print(f"  a client's request failed: {error}")
                    self.failed += 1


def show(step: Step) -> None:
    print(
        f"  {step.share_pct:3g} %  {step.rate_rps:6.1f} requests/s  {step.seconds:5.1f} s  "
        f"{step.rounds:3d} rounds  {step.outcome:12s}  {step.why}"
    )


def roll_out(folder: Path, server: TritonServer, name: str, products: int, hold_s: float) -> None:
    """Promote a version with a canary, and tell how it went."""
    repository = Repository(folder / "models")
    terms = PromotionTerms(
        servers=[RunningServer(server.http_url)], trial=Trial(CanaryPlan(SHARES, hold_s), show)
    )
    run = write_run(folder / "runs" / name, repository, products)
    clients = Clients(server.http_url)
    print(f"{name}:")
    started = time.monotonic()
    with clients.asking():
        try:
            promote(run, [repository.path], terms)
            ended = "took over"
        except RolledBackError as error:
            ended = f"was taken out again (exit code {error.exit_code})"
    model = repository.model(MODEL)
    print(
        f"  {ended} after {time.monotonic() - started:.1f} s in all; serving now: version "
        f"{', '.join(map(str, served_versions(model.config, model.versions)))}; "
        f"{clients.requests} requests of clients meanwhile, {clients.failed} failed"
    )


def main() -> None:
    hold_s = float(sys.argv[1]) if len(sys.argv) > 1 else HOLD_S
    with tempfile.TemporaryDirectory(prefix="trimton-bench-") as name:
        folder = Path(name)
        models = folder / "models"
        write_model(models, MODEL, PRODUCTS)
        write_model(models, "twice", 2 * PRODUCTS)
        with TritonServer.start(
            models, load=[MODEL, "twice"], log_file=folder / "server.log"
        ) as server:
            once, twice = latencies_ms(server, [MODEL, "twice"])
            more = round(PRODUCTS * (SLOWER - 1) * once / (twice - once))
            write_model(models, "slower", PRODUCTS + more)
            server.control.load("slower")
            server.control.unload("twice")
            once, slower = latencies_ms(server, [MODEL, "slower"])
            server.control.unload("slower")
            print(
                f"{PRODUCTS} products: {once:.2f} ms; {PRODUCTS + more}: {slower:.2f} ms "
                f"({slower / once:.3f}x); shares held for {hold_s:g} s, limit 1.05x"
            )
            roll_out(folder, server, "10 % slower", PRODUCTS + more, hold_s)
            roll_out(folder, server, "equal", PRODUCTS, hold_s)


if __name__ == "__main__":
    main()
