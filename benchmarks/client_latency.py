"""What the load generator itself costs: its latency against the server's own account.

Serves a model that does next to nothing, and ``fashion_resnet``, on a real Triton. At
concurrency 1 it takes the mean latency that the client sees apart:

    client latency = the server's request time    (its own statistics)
                   + CPU time of the client       (measured)
                   + the rest: the server's HTTP front end, the kernel, waking threads

Beside it stands a whole round trip of the same client with the same bytes to a server that
answers at once: the least that any client pays here. Then it shows throughput and client CPU at
1, 2, 4 and 16 requests in flight. Figures are medians over rounds.

    python benchmarks/client_latency.py [--rounds N] [--window SECONDS]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import uvloop
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

from trimton.perf.hardware import describe
from trimton.perf.load.arms import ServedArm
from trimton.perf.load.closed_loop import run_closed_loop
from trimton.perf.load.feeds import random_feeds
from trimton.perf.load.requests import prepare_requests
from trimton.perf.load.rounds import measure_rounds
from trimton.perf.measure.processes import tree_cpu_ns
from trimton.perf.results import LevelSummary
from trimton.perf.stats.levels import summarise_levels
from trimton.perf.targets.address import Address
from trimton.perf.targets.endpoint import Endpoint
from trimton.plugin.server.process import TritonServer

LEVELS = (1, 2, 4, 16)
TRIVIAL = "matmul"
FASHION = Path(__file__).parents[1] / "model_repository" / "fashion_resnet"
CONFIG = """
backend: "onnxruntime"
max_batch_size: 32
dynamic_batching { max_queue_delay_microseconds: 0 }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
"""


@dataclass(frozen=True)
class Floor:
    """One request to a server that answers at once, in microseconds."""

    latency_us: float
    server_cpu_us: float
    client_cpu_us: float


def write_trivial_model(repository: Path) -> None:
    """``y = x @ W`` with 16 inputs and outputs."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])
    weights = onnx.numpy_helper.from_array(np.eye(16, dtype=np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "matmul", [x], [y], [weights])
    folder = repository / TRIVIAL / "1"
    folder.mkdir(parents=True)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")
    (folder.parent / "config.pbtxt").write_text(CONFIG)


def answer_at_once(ready: Connection, request_bytes: int) -> None:
    """A server that answers every ``request_bytes`` with a small fixed response."""
    body = bytes(256)
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
    response = head.encode() + body

    class AnswerAtOnce(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.Transport, transport)
            self.received = 0

        def data_received(self, data: bytes) -> None:
            self.received += len(data)
            if self.received >= request_bytes:
                self.received -= request_bytes
                self.transport.write(response)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(AnswerAtOnce, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


@contextmanager
def server_that_answers_at_once(request_bytes: int) -> Iterator[tuple[Address, int]]:
    """Its address and process id; ends with the block."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=answer_at_once, args=(there, request_bytes), daemon=True)
    process.start()
    try:
        assert process.pid is not None
        yield Address("127.0.0.1", here.recv()), process.pid
    finally:
        process.kill()
        process.join()


def measure_floor(requests: Sequence[bytes], rounds: int, window_s: float) -> Floor:
    """The same client with the same bytes, where the server costs next to nothing."""
    found = []
    with server_that_answers_at_once(len(requests[0])) as (address, pid):
        for _ in range(rounds):
            before: list[int] = []
            window = run_closed_loop(
                address,
                requests,
                1,
                window_s=window_s,
                warmup_s=0.2,
                before_window=lambda: before.append(tree_cpu_ns(pid)),  # noqa: B023
            )
            server_ns = tree_cpu_ns(pid) - before[0]
            found.append(
                Floor(
                    latency_us=window.mean_latency_ms * 1000,
                    server_cpu_us=server_ns / window.all_answers / 1000,
                    client_cpu_us=window.cpu_ns / window.requests / 1000,
                )
            )
    return Floor(
        latency_us=statistics.median(f.latency_us for f in found),
        server_cpu_us=statistics.median(f.server_cpu_us for f in found),
        client_cpu_us=statistics.median(f.client_cpu_us for f in found),
    )


def latency_table(model: str, level: LevelSummary, floor: Floor) -> Table:
    """The mean latency at concurrency 1, taken apart."""
    server = level.server
    assert server is not None
    client_us = level.latency_ms.mean.value * 1000
    client_cpu_us = level.client_cpu_us_per_request
    difference_us = client_us - server.request_us
    rows = [
        ("client: mean latency", client_us),
        ("server: request, its own statistics", server.request_us),
        ("    queue", server.queue_us),
        ("    input, infer, output", server.request_us - server.queue_us),
        ("difference", difference_us),
        ("    client: CPU of a request", client_cpu_us),
        ("    the rest: HTTP front end, kernel, waking", difference_us - client_cpu_us),
        ("round trip to a server that answers at once", floor.latency_us),
        ("    client: CPU of a request", floor.client_cpu_us),
        ("    that server: CPU of a request", floor.server_cpu_us),
    ]
    table = Table(f"{model} at concurrency 1", "µs", "of latency", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, microseconds in rows:
        table.add_row(name, f"{microseconds:.0f}", f"{microseconds / client_us:.0%}")
    return table


def throughput_table(model: str, levels: Sequence[LevelSummary]) -> Table:
    """Throughput and what the client takes for it."""
    table = Table(model, "infer/s", "95 %", "p50 ms", "p99 ms", box=None)
    for heading in ("client µs/request", "client core", "server ms/inference", "mean batch"):
        table.add_column(heading)
    for column in table.columns[1:]:
        column.justify = "right"
    for level in levels:
        rate, latency = level.throughput_rps, level.latency_ms
        assert latency.p50 is not None
        assert level.server is not None
        spread = "-" if rate.low is None else f"{rate.low:.0f} - {rate.high:.0f}"
        table.add_row(
            f"concurrency {level.concurrency}",
            f"{rate.value:.0f}",
            spread,
            f"{latency.p50.value:.2f}",
            "-" if latency.p99 is None else f"{latency.p99.value:.2f}",
            f"{level.client_cpu_us_per_request:.0f}",
            f"{level.client_cpu_us_per_request * rate.value / 1e6:.0%}",
            f"{level.cpu_ms_per_inference:.2f}",
            f"{level.server.mean_batch:.1f}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--window", type=float, default=1.0, help="seconds")
    options = parser.parse_args()
    screen = Console(width=110)
    hardware = describe()
    screen.print(
        f"{hardware.cpu_model}, {hardware.cores} cores, {', '.join(hardware.instruction_sets)}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch) / "models"
        write_trivial_model(repository)
        models = [TRIVIAL]
        if (FASHION / "1" / "model.onnx").exists():
            shutil.copytree(FASHION, repository / FASHION.name)
            models.append(FASHION.name)
        with (
            TritonServer.start(repository, log_file=Path(scratch) / "log") as server,
            Endpoint(server.http_url) as endpoint,
        ):
            metadata = endpoint.server_metadata()
            screen.print(f"{metadata.name} {metadata.version}, HTTP, {options.rounds} rounds")
            for model in models:
                specs = endpoint.model_metadata(model).inputs
                feeds = random_feeds(specs, batch=1, count=64, seed=0)
                requests = prepare_requests(server.http_url, model, feeds, specs)
                arm = ServedArm(model, endpoint, model, requests, pid=server.pid)
                windows = measure_rounds(
                    [arm],
                    levels=LEVELS,
                    rounds=options.rounds,
                    window_s=options.window,
                    warmup_s=0.5,
                    seed=0,
                )
                levels = summarise_levels(windows)
                floor = measure_floor(requests, options.rounds, options.window)
                screen.print()
                screen.print(latency_table(model, levels[0], floor))
                screen.print()
                screen.print(throughput_table(model, levels))


if __name__ == "__main__":
    main()
