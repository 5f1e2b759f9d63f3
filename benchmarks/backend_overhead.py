"""What the Python-based onnxruntime backend costs, on a real Triton.

Three models take and give the same tensors: ``echo`` is a Python backend that copies its input
(the floor of any Python-based backend), ``model`` is the same as an ONNX model, and the bare
ONNX Runtime session shows what the model itself takes. Rounds are interleaved; the table has
medians over rounds.

    python benchmarks/backend_overhead.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from trimton.perf.load.closed_loop import run_closed_loop
from trimton.perf.load.requests import prepare_requests
from trimton.perf.targets.endpoint import Endpoint
from trimton.plugin.server.process import TritonServer

WIDTH = 784  # float32 values of a request: a 28 x 28 image
CONCURRENCIES = (1, 4, 16)
ROUNDS = 7
WINDOW_S = 1.0

CONFIG = f"""
backend: "%s"
max_batch_size: 16
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ {WIDTH} ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ {WIDTH} ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{ }}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
"""

ECHO = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("y", r.inputs()[0].as_numpy())])
            for r in requests
        ]
"""


def relu() -> onnx.ModelProto:
    """``y = max(x, 0)``: next to no arithmetic."""
    shape = ["batch", WIDTH]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def session_us(x: np.ndarray) -> float:
    """Microseconds of a bare session's run, the median of many."""
    session = ort.InferenceSession(relu().SerializeToString(), providers=["CPUExecutionProvider"])
    times = []
    for _ in range(3000):
        start = time.perf_counter_ns()
        session.run(["y"], {"x": x})
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1e3


def main() -> None:
    x = np.linspace(-1, 1, WIDTH, dtype=np.float32)[None]
    latency_us: dict[tuple[str, int], list[float]] = {}
    throughput: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="trimton-bench-") as name:
        repository = Path(name) / "models"
        for model, backend in (("echo", "python"), ("model", "onnxruntime")):
            folder = repository / model / "1"
            folder.mkdir(parents=True)
            (folder.parent / "config.pbtxt").write_text(CONFIG % backend)
        (repository / "echo" / "1" / "model.py").write_text(ECHO)
        onnx.save(relu(), repository / "model" / "1" / "model.onnx")
        with (
            TritonServer.start(repository, log_file=Path(name) / "server.log") as server,
            Endpoint(server.http_url) as endpoint,
        ):
            requests = {
                model: prepare_requests(
                    server.http_url, model, [{"x": x}], endpoint.model_metadata(model).inputs
                )
                for model in ("echo", "model")
            }
            for _ in range(ROUNDS):
                for concurrency in CONCURRENCIES:
                    for model, prepared in requests.items():
                        window = run_closed_loop(
                            endpoint.address,
                            prepared,
                            concurrency,
                            window_s=WINDOW_S,
                            warmup_s=WINDOW_S / 4,
                        )
                        key = (model, concurrency)
                        latency_us.setdefault(key, []).append(window.mean_latency_ms * 1e3)
                        throughput.setdefault(key, []).append(window.requests / window.duration_s)
            print(f"Triton {server.control.version()}, {WIDTH} float32 in and out, medians")
    print(
        f"{'concurrency':>11} {'echo req/s':>11} {'model req/s':>12} {'echo us':>9} {'model us':>9}"
    )
    for concurrency in CONCURRENCIES:
        echo, model = ("echo", concurrency), ("model", concurrency)
        print(
            f"{concurrency:>11} {statistics.median(throughput[echo]):>11.0f} "
            f"{statistics.median(throughput[model]):>12.0f} "
            f"{statistics.median(latency_us[echo]):>9.0f} "
            f"{statistics.median(latency_us[model]):>9.0f}"
        )
    print(f"bare ONNX Runtime session: {session_us(x):.1f} us a run")


if __name__ == "__main__":
    main()
