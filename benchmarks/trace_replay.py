"""A trace recorded from one run and replayed: is it the same arrival process?

Poisson arrivals load a real Triton; the instants at which requests were really sent are written
to a trace, and the trace is replayed. Printed are the Kolmogorov-Smirnov distances between the
inter-arrival times of schedule, recording and replay (0 = the same distribution, 1 = disjoint),
each beside the distance that chance alone exceeds in one case of a hundred.

    python benchmarks/trace_replay.py [--rate R] [--seconds S]
"""

from __future__ import annotations

import argparse
import tempfile
from array import array
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import ks_2samp
from trivial_server import trivial_server

from trimton.perf.formats.traces import read_trace, write_trace
from trimton.perf.load.arms import Load, ServedArm, schedules
from trimton.perf.load.connection import Connection, Connector, OnAnswer, OnFailure
from trimton.perf.load.http_connection import HttpConnector
from trimton.perf.load.schedules import Arrivals, Instants, PoissonRate


@dataclass
class Recording:
    """A connector that notes when each answered request was sent."""

    inner: Connector
    sent_ns: array[int] = field(default_factory=lambda: array("q"))

    @property
    def where(self) -> str:
        return self.inner.where

    async def open(self, on_answer: OnAnswer, on_failure: OnFailure) -> Connection:
        def noted(connection: Connection, finished_ns: int) -> None:
            self.sent_ns.append(connection.sent_ns)
            on_answer(connection, finished_ns)

        return await self.inner.open(noted, on_failure)


def sends(arm: ServedArm, arrivals: Arrivals, seconds: float) -> Instants:
    """When the requests of ``arrivals`` were really sent, ascending."""
    recording = Recording(HttpConnector(arm.endpoint.address))
    replace(arm, connector=recording).run(Load(0, 0, seconds, 0, arrivals))
    return np.sort(np.frombuffer(recording.sent_ns, np.int64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=500.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    poisson = PoissonRate(options.rate)
    with trivial_server() as running, tempfile.TemporaryDirectory() as scratch:
        scheduled, _ = schedules(Load(0, 0, options.seconds, 0, poisson))
        recorded = sends(running.arm, poisson, options.seconds)
        path = Path(scratch) / "trace.txt"
        write_trace(path, recorded)
        replayed = sends(running.arm, read_trace(path), options.seconds)
    table = Table(
        "inter-arrival times", "KS distance", "by chance, 1 %", "mean µs", "mean µs", box=None
    )
    pairs = {
        "schedule and recording": (scheduled, recorded),
        "recording and replay": (recorded, replayed),
        "schedule and replay": (scheduled, replayed),
    }
    for name, (first, second) in pairs.items():
        gaps = np.diff(first), np.diff(second)
        chance = 1.63 * np.sqrt(sum(1 / len(gap) for gap in gaps))
        table.add_row(
            name,
            f"{ks_2samp(*gaps).statistic:.4f}",
            f"{chance:.4f}",
            *(f"{gap.mean() / 1000:.1f}" for gap in gaps),
        )
    screen = Console(width=110)
    screen.print(f"{len(scheduled)} Poisson arrivals at {options.rate:g}/s")
    screen.print(table)


if __name__ == "__main__":
    main()
