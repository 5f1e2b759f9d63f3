"""What a request costs the load generator, by protocol, size and requests in flight.

Serves two models that do next to nothing on a real Triton: one with inputs of 64 bytes, one with
the 602,112 bytes of an image in float32. Loads them over HTTP and gRPC, with tensors in the
request and in shared memory, and gRPC with 1, 6 and 64 streams on a TCP connection. Rounds are
interleaved; figures are medians over rounds. CPU is that of this process, kernel included.

    python benchmarks/protocol_cost.py [--rounds N] [--window SECONDS]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

from trimton.perf.load.closed_loop import run_closed_loop
from trimton.perf.load.grpc_connection import GrpcConnector
from trimton.perf.load.protocols import (
    PROTOCOLS,
    PreparedLoad,
    prepare_load,
    shared_memory_load,
)
from trimton.perf.targets.access import Access
from trimton.perf.targets.address import Address
from trimton.plugin.server.process import TritonServer

MODELS = {"small": 16, "image": 3 * 224 * 224}
LEVELS = (1, 16)
STREAMS = (1, 6, 64)
CONFIG = """
backend: "onnxruntime"
max_batch_size: 32
dynamic_batching { max_queue_delay_microseconds: 0 }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
"""


@dataclass(frozen=True)
class Reading:
    """One window."""

    requests_per_s: float
    p50_ms: float
    client_us: float


def write_model(repository: Path, name: str, values: int) -> None:
    """``y`` is the first 2 of the ``values`` of ``x``."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", values])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    bounds = [
        onnx.numpy_helper.from_array(np.array([value], np.int64), bound)
        for bound, value in (("start", 0), ("end", 2), ("axis", 1))
    ]
    node = helper.make_node("Slice", ["x", "start", "end", "axis"], ["y"])
    graph = helper.make_graph([node], name, [x], [y], bounds)
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")
    (folder.parent / "config.pbtxt").write_text(CONFIG)


@contextmanager
def loads(server: TritonServer, model: str) -> Iterator[dict[str, PreparedLoad]]:
    """All ways to load ``model``, by name."""
    feeds = [{"x": np.full((1, MODELS[model]), value, np.float32)} for value in range(16)]
    http, grpc = PROTOCOLS["http"], PROTOCOLS["grpc"]
    over_http = Access(Address.parse(server.http_url))
    over_grpc = Access(Address.parse(server.grpc_url))
    with http.endpoint(over_http) as endpoint:
        specs = endpoint.model_metadata(model).inputs
        options = {"batch": 1, "in_flight": max(LEVELS)}
        by_grpc = prepare_load(grpc, over_grpc, model, feeds, specs)
        with (
            shared_memory_load(http, over_http, endpoint, model, feeds, **options) as http_shared,
            shared_memory_load(grpc, over_grpc, endpoint, model, feeds, **options) as grpc_shared,
        ):
            yield {
                "HTTP": prepare_load(http, over_http, model, feeds, specs),
                "HTTP, shared memory": http_shared,
                **{
                    f"gRPC, {count} a connection": replace(
                        by_grpc,
                        connector=GrpcConnector(
                            over_grpc.address, streams_per_tcp_connection=count
                        ),
                    )
                    for count in STREAMS
                },
                "gRPC, shared memory": grpc_shared,
            }


def measure(load: PreparedLoad, concurrency: int, window_s: float) -> Reading:
    """One window after a short warm-up."""
    window = run_closed_loop(
        load.connector, load.requests, concurrency, window_s=window_s, warmup_s=window_s / 5
    )
    if window.errors:
        raise SystemExit(f"the server refused requests: {window.error_example}")
    p50_ms = window.histogram.percentile_ms(0.5)
    return Reading(
        window.requests / window.duration_s,
        float("nan") if p50_ms is None else p50_ms,
        window.cpu_ns / window.requests / 1000,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--window", type=float, default=1.0, help="seconds (default 1)")
    arguments = parser.parse_args()
    table = Table("input", "in flight", "protocol", "requests/s", "p50 ms", "client µs/request")
    with tempfile.TemporaryDirectory(prefix="trimton-protocols-") as name:
        repository = Path(name) / "models"
        for model, values in MODELS.items():
            write_model(repository, model, values)
        with TritonServer.start(repository, log_file=Path(name) / "server.log") as server:
            for model in MODELS:
                with loads(server, model) as ways:
                    for concurrency in LEVELS:
                        readings = [
                            {way: measure(load, concurrency, arguments.window)}
                            for _ in range(arguments.rounds)
                            for way, load in ways.items()
                        ]
                        for way in ways:
                            own = [reading[way] for reading in readings if way in reading]
                            table.add_row(
                                model,
                                str(concurrency),
                                way,
                                f"{median(r.requests_per_s for r in own):.0f}",
                                f"{median(r.p50_ms for r in own):.2f}",
                                f"{median(r.client_us for r in own):.1f}",
                            )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
