"""A trace recorded from one run and replayed: is it the same arrival process?

Poisson arrivals load a real Triton and are saved as a trace, which is replayed; the trace of the
replay is replayed once more. A trace holds the instants at which requests were due, not those at
which they left: a sender is late by some microseconds, and a trace of its sends would carry that
into the next generation, and the next. Printed are the Kolmogorov-Smirnov distances between the
inter-arrival times (0 = the same distribution, 1 = disjoint) of traces, and of real sends, as the
server sees them; each beside the distance that chance alone exceeds in one case of a hundred. The
last row is what the sender itself adds. Exit code 1 where a distance between traces is over the
limit, or one between sends although the sender itself is within it; a machine so busy that it is
not leaves the sends open.

    python benchmarks/trace_replay.py [--rate R] [--seconds S]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from array import array
from dataclasses import dataclass, field, replace
from math import sqrt
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
from trimton.perf.load.request_log import RequestLog
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


@dataclass(frozen=True)
class Distance:
    """Between the inter-arrival times of two loads, and what chance exceeds in 1 of 100 cases."""

    ks: float
    chance: float
    means_us: tuple[float, float]

    @classmethod
    def between(cls, one: Instants, other: Instants) -> Distance:
        """Of two ascending series of instants."""
        gaps = np.diff(one), np.diff(other)
        return cls(
            ks=float(ks_2samp(*gaps).statistic),
            chance=1.63 * sqrt(sum(1 / len(gap) for gap in gaps)),
            means_us=(float(gaps[0].mean()) / 1000, float(gaps[1].mean()) / 1000),
        )

    @property
    def is_chance(self) -> bool:
        """Whether two samples of one distribution can be so far apart."""
        return self.ks <= self.chance


@dataclass(frozen=True)
class Run:
    """One load: the arrivals that its saved trace holds, and when requests really left."""

    arrivals_ns: Instants
    sends_ns: Instants


def run(arm: ServedArm, arrivals: Arrivals, seconds: float) -> Run:
    """Load with ``arrivals`` and record both, as ``perf --save-trace`` does."""
    recording, log = Recording(HttpConnector(arm.endpoint.address)), RequestLog()
    recorded = replace(arm, connector=recording, on_request=log.on_request)
    log.on_window(recorded.measure(Load(0, 0, seconds, 0, arrivals)))
    return Run(
        np.sort(log.windows[0].started_ns), np.sort(np.frombuffer(recording.sent_ns, np.int64))
    )


def saved(arrivals_ns: Instants, folder: Path) -> Arrivals:
    """The trace of ``arrivals_ns`` after its way through a file."""
    path = folder / "trace.txt"
    write_trace(path, arrivals_ns)
    return read_trace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=500.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    poisson = PoissonRate(options.rate)
    with trivial_server() as running, tempfile.TemporaryDirectory() as scratch:
        scheduled, _ = schedules(Load(0, 0, options.seconds, 0, poisson))
        first = run(running.arm, poisson, options.seconds)
        replay = run(running.arm, saved(first.arrivals_ns, Path(scratch)), options.seconds)
        again = run(running.arm, saved(replay.arrivals_ns, Path(scratch)), options.seconds)
    pairs = {
        "schedule and trace of its run": (scheduled, first.arrivals_ns),
        "trace and trace of its replay's replay": (first.arrivals_ns, again.arrivals_ns),
        "sends of run and replay": (first.sends_ns, replay.sends_ns),
        "sends of run and replay's replay": (first.sends_ns, again.sends_ns),
        "arrivals and sends of one run": (first.arrivals_ns, first.sends_ns),
    }
    found = {name: Distance.between(*pair) for name, pair in pairs.items()}
    table = Table(
        "inter-arrival times", "KS distance", "by chance, 1 %", "mean µs", "mean µs", box=None
    )
    for name, one in found.items():
        means = (f"{mean_us:.1f}" for mean_us in one.means_us)
        table.add_row(name, f"{one.ks:.4f}", f"{one.chance:.4f}", *means)
    screen = Console(width=110)
    screen.print(f"{len(scheduled)} Poisson arrivals at {options.rate:g}/s")
    screen.print(table)
    *traces_and_sends, sender = found.values()
    judged = traces_and_sends if sender.is_chance else traces_and_sends[:2]
    if not sender.is_chance:
        screen.print("the machine is too busy to compare sends")
    sys.exit(0 if all(one.is_chance for one in judged) else 1)


if __name__ == "__main__":
    main()
