"""One load carried by Ray actors on two nodes, against the same load from one process.

Starts a real Triton, a Ray cluster of two nodes on this machine, and one actor on each node. For
HTTP and gRPC, in a closed loop and at a constant rate, it compares what the actors count together
with what the server counts, and their throughput and latency with those of one process. Ends with
exit code 1 where a count is not exact.

On one machine the nodes share its cores, so two actors are not faster than one process here: what
is shown is that split, start and merge are right.

    python benchmarks/ray_two_nodes.py [--window SECONDS]

Sets up its own environment with Ray in the user's cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from ray_environment import python_with_ray
from rich.console import Console
from rich.table import Table

from trimton.perf.load.arms import Load
from trimton.perf.load.protocols import PROTOCOLS, prepare_load
from trimton.perf.load.ray_workers import RayWorkers
from trimton.perf.load.schedules import ConstantRate
from trimton.perf.load.shares import Crew, LoadSource, merge_tallies, run_share
from trimton.perf.load.tally import Tally
from trimton.perf.measure.server_statistics import statistics_between
from trimton.perf.targets.access import Access
from trimton.perf.targets.address import Address
from trimton.plugin.server.probe import probe_model
from trimton.plugin.server.process import TritonServer

_INSIDE = "TRIMTON_BENCHMARK_HAS_RAY"
MODEL = "probe"
CONCURRENCY = 4
RATE_RPS = 200.0


@dataclass(frozen=True)
class Outcome:
    """A load as the client and the server counted it."""

    tally: Tally
    server_requests: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--window", type=float, default=3.0, help="seconds (default 3)")
    arguments = parser.parse_args()
    if _INSIDE not in os.environ:
        command = [python_with_ray(), *sys.argv]
        return subprocess.run(command, env={**os.environ, _INSIDE: "1"}, check=False).returncode
    with triton() as server, cluster_of_two_nodes() as address, RayWorkers(2, address) as crew:
        nodes = crew.nodes
        rows = [
            (protocol, kind, one_process(way, load), on_crew(crew, way, load))
            for protocol, way in ways(server).items()
            for kind, load in loads(arguments.window).items()
        ]
    report(rows, nodes)
    exact = all(o.tally.all_answers == o.server_requests for _, _, *both in rows for o in both)
    return 0 if exact and len(set(nodes)) == 2 else 1


@contextmanager
def triton() -> Iterator[TritonServer]:
    """A real Triton that serves a trivial model."""
    with tempfile.TemporaryDirectory(prefix="trimton-ray-") as name:
        repository = Path(name) / "models"
        (repository / MODEL / "1").mkdir(parents=True)
        onnx.save(probe_model(), repository / MODEL / "1" / "model.onnx")
        log_file = Path(name) / "server.log"
        with TritonServer.start(repository, load=[MODEL], log_file=log_file) as server:
            yield server


@contextmanager
def cluster_of_two_nodes() -> Iterator[str]:
    """A Ray cluster with two nodes of one processor each on this machine; gives its address."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


def ways(server: TritonServer) -> dict[str, LoadSource]:
    """How to load the server, by protocol."""
    made = {}
    for name, url in (("http", server.http_url), ("grpc", server.grpc_url)):
        protocol, access = PROTOCOLS[name], Access(Address.parse(url))
        with protocol.endpoint(access) as endpoint:
            specs = endpoint.model_metadata(MODEL).inputs
        feeds = [{"x": np.full((1, 3), value, np.float32)} for value in range(8)]
        requests = prepare_load(protocol, access, MODEL, feeds, specs).requests
        made[name] = LoadSource(name, access, requests)
    return made


def loads(window_s: float) -> dict[str, Load]:
    """What is measured; without a warm-up, so that every request counts on both sides."""
    return {
        f"{CONCURRENCY} in flight": Load(CONCURRENCY, 0, window_s, 0.0),
        f"{RATE_RPS:g}/s": Load(0, 0, window_s, 0.0, ConstantRate(RATE_RPS)),
    }


def one_process(way: LoadSource, load: Load) -> Outcome:
    """The load from this process alone."""
    return counted(way, lambda: run_share(way, load, 0, 1, lambda: None))


def on_crew(crew: Crew, way: LoadSource, load: Load) -> Outcome:
    """The load from all workers of ``crew``."""
    return counted(way, lambda: merge_tallies(crew.run(way, load)))


def counted(way: LoadSource, run: Callable[[], Tally]) -> Outcome:
    """Run a load between two looks at the server's own count."""
    with PROTOCOLS[way.protocol].endpoint(way.access) as endpoint:
        before = endpoint.model_statistics(MODEL)
        tally = run()
        server = statistics_between(before, endpoint.model_statistics(MODEL))
    return Outcome(tally, 0 if server is None else server.requests)


def report(rows: list[tuple[str, str, Outcome, Outcome]], nodes: tuple[str, ...]) -> None:
    """Print what was found."""
    console = Console(width=110)
    console.print(f"{len(nodes)} actors on {len(set(nodes))} Ray nodes")
    table = Table("load", "by", "requests/s", "p50 ms", "answers", "at the server")
    for protocol, kind, *both in rows:
        for by, outcome in zip(("one process", "two actors"), both, strict=True):
            tally = outcome.tally
            p50_ms = tally.histogram.percentile_ms(0.5)
            table.add_row(
                f"{protocol}, {kind}",
                by,
                f"{tally.requests / tally.duration_s:.0f}",
                "too few" if p50_ms is None else f"{p50_ms:.2f}",
                str(tally.all_answers),
                str(outcome.server_requests),
            )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
