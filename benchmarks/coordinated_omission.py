"""A server that stops for a second: who is charged for the wait?

200 requests per second arrive, evenly, for 10 s at a real Triton that is stopped
(SIGSTOP) for 1 s in the middle. Everyone who arrived during the stop waited: the k-th of them for
the rest of the stop and for those before it in the queue. Arithmetic (Lindley's recursion on the
schedule, with the measured stop and the measured capacity) gives the percentiles that a truthful
load tester must print: about 0.5 s at p95 and 0.9 s at p99. perf_analyzer runs the same beside it
where it is installed (python benchmarks/perf_analyzer_binary.py), as three windows that it
averages, because it prints nothing for one.

    python benchmarks/coordinated_omission.py
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
from client_latency import TRIVIAL
from rich.console import Console
from rich.table import Table
from trivial_server import TrivialServer, trivial_server

from trimton.core.errors import InputError
from trimton.perf.engines.program import find_program
from trimton.perf.load.arms import Load
from trimton.perf.load.schedules import ConstantRate
from trimton.perf.load.span import Span
from trimton.perf.measure.histogram import LatencyHistogram
from trimton.plugin.server.installation import home

RATE_RPS = 200
DURATION_S = 10.0
STOP_AFTER_S = 4.5
STOP_S = 1.0
PERCENTILES = (50, 90, 95, 99)


@dataclass
class Stall:
    """Stops ``tritonserver`` once, ``after_s`` from the call of ``begin``.

    Not the processes of its Python backend: it would take them for dead and start them anew.
    """

    pid: int
    after_s: float
    stopped_s: float = 0.0
    _thread: threading.Thread = field(init=False)

    def begin(self) -> None:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        time.sleep(self.after_s)
        root = psutil.Process(self.pid)
        [server] = [
            process
            for process in (root, *root.children(recursive=True))
            if process.name() == "tritonserver"
        ]
        begun = time.monotonic()
        os.kill(server.pid, signal.SIGSTOP)
        time.sleep(STOP_S)
        os.kill(server.pid, signal.SIGCONT)
        self.stopped_s = time.monotonic() - begun


def expected_ms(stopped_s: float, service_s: float, latency_s: float) -> list[float]:
    """The percentiles that arithmetic gives, in milliseconds.

    One queue that serves a request in ``service_s`` and stands still for ``stopped_s``; without
    a queue a request takes ``latency_s``.
    """
    due_s = ConstantRate(RATE_RPS).instants_ns(DURATION_S, 0) / 1e9
    stop_ends_s = STOP_AFTER_S + stopped_s
    free_s = 0.0
    latencies = []
    for due in due_s:
        start = max(due, free_s)
        if STOP_AFTER_S <= start < stop_ends_s:
            start = stop_ends_s
        free_s = start + service_s
        latencies.append(start - due + latency_s)
    return percentiles_ms(np.array(latencies))


def percentiles_ms(latencies_s: npt.NDArray[np.float64]) -> list[float]:
    return [float(np.quantile(latencies_s, p / 100, method="higher")) * 1000 for p in PERCENTILES]


def ours(running: TrivialServer) -> tuple[list[float], float]:
    """Percentiles of latency in ms, and the length of the stop in s."""
    stall = Stall(running.server.pid, STOP_AFTER_S)
    load = Load(0, 0, DURATION_S, 0.5, ConstantRate(RATE_RPS))
    span, _ = running.arm.run(load, before_window=stall.begin)
    stall.wait()
    assert isinstance(span, Span), "a schedule is counted by a span"
    assert span.requests == RATE_RPS * DURATION_S, span.errors
    return _of(span.histogram), stall.stopped_s


def _of(histogram: LatencyHistogram) -> list[float]:
    found = [histogram.percentile_ms(p / 100) for p in PERCENTILES]
    return [value for value in found if value is not None]


def theirs(running: TrivialServer) -> list[float]:
    """What perf_analyzer prints for the same, in ms. InputError where it is not installed."""
    program = find_program(home())
    stall = Stall(running.server.pid, STOP_AFTER_S)
    window_ms = round(DURATION_S * 1000 / 3)
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.csv"
        command = [
            *(str(program.path), "-m", TRIVIAL, "-u", running.server.http_url),
            *("--request-rate-range", str(RATE_RPS), "--request-distribution", "constant"),
            *("--measurement-interval", str(window_ms), "--max-trials", "3"),
            *("--stability-percentage", "1000000", "-f", str(report)),
        ]
        stall.begin()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        stall.wait()
        if done.returncode or not report.exists():
            raise InputError(f"perf_analyzer ended without a report: {done.stdout[-300:]}")
        with report.open() as file:
            [row] = csv.DictReader(file)
    return [int(row[f"p{p} latency"]) / 1000 for p in PERCENTILES]


def main() -> None:
    screen = Console(width=110)
    table = Table("milliseconds", box=None)
    for percentile in PERCENTILES:
        table.add_column(f"p{percentile}", justify="right")
    with trivial_server() as running:
        capacity, _ = running.arm.run(Load(16, 0, 1.0, 0.3))
        alone, _ = running.arm.run(Load(0, 0, 2.0, 0.3, ConstantRate(RATE_RPS)))
        service_s = capacity.duration_s / capacity.requests
        [alone_ms, *_] = _of(alone.histogram)
        latency, stopped_s = ours(running)
        expected = expected_ms(stopped_s, service_s, alone_ms / 1000)
        rows = {"arithmetic": expected, "trimton": latency}
        try:
            rows["perf_analyzer"] = theirs(running)
        except InputError as error:
            screen.print(str(error))
    for name, values in rows.items():
        table.add_row(name, *(f"{value:.1f}" for value in values))
    screen.print(
        f"{RATE_RPS} requests/s for {DURATION_S:g} s, stopped for {stopped_s:.3f} s; alone "
        f"{alone_ms:.2f} ms, capacity {1 / service_s:.0f}/s"
    )
    screen.print(table)
    worst = max(abs(a / b - 1) for a, b in zip(latency[2:], expected[2:], strict=True))
    screen.print(f"p95 and p99 are within {worst:.1%} of arithmetic (target: 10 %)")


if __name__ == "__main__":
    main()
