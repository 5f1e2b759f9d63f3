"""Trimton's load generator beside perf_analyzer's, on one server.

    python benchmarks/load_vs_perf_analyzer.py [--rounds N] [--window SECONDS] [--quick]

One real Triton serves a trivial model (where the client's cost shows) and fashion_resnet (where
the model's does). Both clients send the same inputs in a closed loop, over HTTP and over gRPC, at
1 to 64 requests in flight. Rounds are interleaved in a balanced order, and ratios are taken within
rounds (see trimton.perf.stats.paired). On one machine the client's CPU is taken from the server,
so a leaner client measures a faster server. perf_analyzer runs as its users run it, with its
defaults and a CSV report; its CPU time includes starting it. It hangs now and then at concurrency
64: it is asked again, and a pair without its figures is left out and counted in the table. Exit
code 1 if a goal is missed by the whole interval.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

from client_latency import FASHION, TRIVIAL, write_trivial_model
from perf_analyzer_binary import install
from rich.console import Console
from rich.table import Table

from trimton.core.errors import InfrastructureError
from trimton.perf.engines.input_data import write_input_data
from trimton.perf.engines.perf_analyzer import (
    AnalyzerRound,
    AnalyzerSettings,
    Protocol,
    Target,
    run_once,
)
from trimton.perf.engines.program import Program
from trimton.perf.hardware import describe
from trimton.perf.load.arms import Load, ServedArm
from trimton.perf.load.feeds import random_feeds
from trimton.perf.load.protocols import PROTOCOLS, prepare_load
from trimton.perf.measure.histogram import LatencyHistogram
from trimton.perf.results import LoadWindow
from trimton.perf.stats.order import balanced_order
from trimton.perf.stats.paired import RatioEstimate, paired_ratio
from trimton.perf.stats.quantiles import fixed
from trimton.perf.targets.access import Access
from trimton.perf.targets.address import Address
from trimton.perf.targets.endpoint import Endpoint
from trimton.plugin.server.process import TritonServer

LEVELS = (1, 2, 4, 16, 64)
REQUESTS = 64  # different ones, sent in turn
ATTEMPTS = 2  # of perf_analyzer, which hangs now and then
PAIRS_MIN = 3  # fewer tell nothing
WARMUP_S = 0.5
# (protocol, concurrency) -> the throughput that the trivial model shall have, ours over theirs.
GOALS = {("http", 1): 1.15, ("http", 16): 1.5, ("grpc", 1): 1.1, ("grpc", 16): 1.5}
NEVER_BELOW = 0.98
CLIENT_CPU_AT_MOST = 0.5


@dataclass(frozen=True)
class Round:
    """What one client measured in one round; latencies in ms, None with too few requests."""

    throughput_rps: float
    p50_ms: float | None
    p99_ms: float | None
    client_cpu_us: float


@dataclass(frozen=True)
class Contest:
    """The complete pairs, of ``asked`` rounds, for one model, protocol and concurrency."""

    model: str
    protocol: Protocol
    concurrency: int
    asked: int
    theirs: tuple[Round, ...]
    ours: tuple[Round, ...]

    @property
    def pairs(self) -> int:
        """The rounds that both clients finished."""
        return len(self.ours)

    @property
    def is_measured(self) -> bool:
        """Whether enough pairs are complete, or all where few were asked for."""
        return self.pairs >= min(PAIRS_MIN, self.asked)

    def ratio(self, field: str) -> RatioEstimate | None:
        """Ours over theirs; None where a round lacks the figure."""
        values = [[getattr(one, field) for one in side] for side in (self.ours, self.theirs)]
        return None if None in values[0] + values[1] else paired_ratio(*values)

    def short_of_goals(self) -> Iterator[tuple[bool, str]]:
        """Each goal that the ratio does not reach: whether its whole interval does not, and words.

        An interval that holds the goal leaves it open: more or calmer rounds would tell.
        """
        goal = NEVER_BELOW
        if self.model == TRIVIAL:
            goal = GOALS.get((self.protocol, self.concurrency), NEVER_BELOW)
        where = f"{self.model}, {self.protocol}, concurrency {self.concurrency}"
        if not self.is_measured:
            yield False, f"open: {where}: perf_analyzer hung in {self.asked - self.pairs} rounds"
            return
        for name, field, least, most in (
            ("throughput", "throughput_rps", goal, inf),
            ("client CPU", "client_cpu_us", 0.0, CLIENT_CPU_AT_MOST),
        ):
            found = self.ratio(field)
            assert found is not None, "every round has both"
            if least <= found.ratio <= most:
                continue
            low, high = found.interval(fixed(found.effective_rounds)) or (0.0, inf)
            is_missed = high < least or low > most
            asked = f"at least {least:g}x" if least else f"at most {most:g}x"
            verdict = "missed" if is_missed else "open"
            yield is_missed, f"{verdict}: {where}: {name} {found.ratio:.2f}x, the goal is {asked}"


def of_window(window: LoadWindow) -> Round:
    """Ours."""
    histogram = LatencyHistogram.decode(window.latency_histogram)
    return Round(
        throughput_rps=window.throughput_rps,
        p50_ms=histogram.percentile_ms(0.50),
        p99_ms=histogram.percentile_ms(0.99),
        client_cpu_us=window.client_cpu_us_per_request,
    )


def of_analyzer(measured: AnalyzerRound) -> Round:
    """Theirs."""
    return Round(
        throughput_rps=measured.throughput_rps,
        p50_ms=measured.latencies_ms.get("p50"),
        p99_ms=measured.latencies_ms.get("p99"),
        client_cpu_us=measured.client_cpu_us_per_request,
    )


def theirs(
    program: Program,
    target: Target,
    data: Path,
    level: int,
    number: int,
    settings: AnalyzerSettings,
) -> Round | None:
    """One round of perf_analyzer, asked again where it hangs; None where it always does."""
    for _ in range(ATTEMPTS):
        try:
            return of_analyzer(run_once(program, target, data, level, number, settings))
        except InfrastructureError as error:
            print(f"left out: {error}", file=sys.stderr)
    return None


def contests(
    server: TritonServer,
    program: Program,
    model: str,
    protocol: Protocol,
    levels: Sequence[int],
    rounds: int,
    window_s: float,
) -> Iterator[Contest]:
    """Both clients on ``model`` over ``protocol``, level by level."""
    url = server.grpc_url if protocol == "grpc" else server.http_url
    access = Access(Address.parse(url))
    with Endpoint(server.http_url) as endpoint, tempfile.TemporaryDirectory() as scratch:
        specs = endpoint.model_metadata(model).inputs
        feeds = random_feeds(specs, batch=1, count=REQUESTS, seed=0)
        load = prepare_load(PROTOCOLS[protocol], access, model, feeds, specs)
        arm = ServedArm("trimton", endpoint, model, load.requests, connector=load.connector)
        target = Target(model, model, url, protocol, endpoint, specs, feeds, 1, batches=True)
        data = Path(scratch) / "inputs.json"
        write_input_data(data, feeds, specs, batches=True)
        settings = AnalyzerSettings.like_one_window(window_s)

        for level in levels:
            pairs: list[tuple[Round, Round]] = []
            for number, order in enumerate(balanced_order(2, rounds, seed=0)):
                measured: dict[int, Round | None] = {}
                for side in order:
                    if side == 0:
                        measured[0] = theirs(program, target, data, level, number, settings)
                    else:
                        ours = arm.measure(Load(level, number, window_s, WARMUP_S))
                        measured[1] = of_window(ours)
                if measured[0] is not None and measured[1] is not None:
                    pairs.append((measured[0], measured[1]))
            yield Contest(
                model=model,
                protocol=protocol,
                concurrency=level,
                asked=rounds,
                theirs=tuple(pair[0] for pair in pairs),
                ours=tuple(pair[1] for pair in pairs),
            )


def table(found: Sequence[Contest]) -> Table:
    """Theirs / ours and the ratio for each figure; all of one model and protocol."""
    made = Table(f"{found[0].model}, {found[0].protocol}", box=None)
    for heading in (
        "rounds",
        "infer/s",
        "ratio",
        "95 %",
        "p50 ms",
        "p99 ms",
        "client µs/request",
        "ratio",
    ):
        made.add_column(heading, justify="right")
    for one in found:
        done = f"{one.pairs} of {one.asked}"
        if not one.is_measured:
            made.add_row(f"concurrency {one.concurrency}", done, "perf_analyzer hung")
            continue
        throughput = one.ratio("throughput_rps")
        cpu = one.ratio("client_cpu_us")
        assert throughput is not None
        assert cpu is not None
        interval = throughput.interval(fixed(throughput.effective_rounds))
        made.add_row(
            f"concurrency {one.concurrency}",
            done,
            f"{throughput.baseline:.0f} / {throughput.variant:.0f}",
            f"{throughput.ratio:.2f}x",
            "-" if interval is None else f"{interval[0]:.2f} - {interval[1]:.2f}",
            _both(one.ratio("p50_ms")),
            _both(one.ratio("p99_ms")),
            f"{cpu.baseline:.0f} / {cpu.variant:.0f}",
            f"{cpu.ratio:.2f}x",
        )
    return made


def _both(ratio: RatioEstimate | None) -> str:
    return "-" if ratio is None else f"{ratio.baseline:.2f} / {ratio.variant:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--window", type=float, default=2.0, help="seconds")
    parser.add_argument("--quick", action="store_true", help="a try: two short rounds, two levels")
    options = parser.parse_args()
    rounds, window_s, levels = options.rounds, options.window, LEVELS
    if options.quick:
        rounds, window_s, levels = 2, 0.6, (1, 16)
    program = install()
    screen = Console(width=130)
    hardware = describe()
    screen.print(f"{hardware.cpu_model}, {hardware.cores} cores")
    short: list[tuple[bool, str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch) / "models"
        write_trivial_model(repository)
        shutil.copytree(FASHION, repository / FASHION.name)
        with TritonServer.start(repository, log_file=Path(scratch) / "log") as server:
            screen.print(
                f"Triton {server.control.version()}; perf_analyzer {program.version} / Trimton, "
                f"{rounds} rounds of {window_s:g} s each"
            )
            for model in (TRIVIAL, FASHION.name):
                for protocol in ("http", "grpc"):
                    found = list(
                        contests(server, program, model, protocol, levels, rounds, window_s)
                    )
                    screen.print()
                    screen.print(table(found))
                    short += [goal for contest in found for goal in contest.short_of_goals()]
    screen.print("\n" + ("\n".join(words for _, words in short) or "every goal is met"))
    sys.exit(1 if any(is_missed for is_missed, _ in short) else 0)


if __name__ == "__main__":
    main()
