"""perf_analyzer as an engine: the same load, its own figures, in our summaries.

One round at one concurrency is one run of the program. Times and rates are read from its CSV. The
raw times of its export are not used: to write them it keeps every input and output, which makes a
heavier client than the one that its users measure with.
"""

from __future__ import annotations

import csv
import resource
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trimton.core.errors import InfrastructureError, InputError
from trimton.perf.engines.input_data import write_input_data
from trimton.perf.engines.program import Program
from trimton.perf.measure.histogram import PERCENTILES, requests_needed
from trimton.perf.measure.server_statistics import statistics_between
from trimton.perf.results import ServerStatistics
from trimton.perf.targets.model_endpoint import ModelEndpoint
from trimton.perf.targets.tensors import Array, TensorSpec

Protocol = Literal["http", "grpc"]

# It reports nothing before this many windows agree, and their average is its figure.
WINDOWS = 3
_START_S = 30
_OPTION_ERROR = 3  # its exit code for settings that it does not take
# Wide enough for any three windows to agree.
_ANY_DIFFERENCE_PCT = 100_000
# Our name of a figure -> columns whose sum it is, in microseconds; the first set that is there
# counts. With --percentile the mean has no column, but its two parts have.
_LATENCY_COLUMNS: Mapping[str, Sequence[tuple[str, ...]]] = {
    "mean": (("Avg latency",), ("request/response", "response wait")),
    **{name: ((f"{name} latency",),) for name in PERCENTILES},
}


@dataclass(frozen=True)
class Target:
    """What to load: ``url`` is ``host:port`` of ``protocol``; ``endpoint`` is the same server.

    ``feeds`` are the inputs of requests of ``batch`` samples each, taken in turn; ``batches``
    says whether the model has a batch axis that the server knows of (``max_batch_size`` > 0).
    """

    variant: str
    model: str
    url: str
    protocol: Protocol
    endpoint: ModelEndpoint
    specs: Sequence[TensorSpec]
    feeds: Sequence[Mapping[str, Array]]
    batch: int
    batches: bool


@dataclass(frozen=True)
class AnalyzerSettings:
    """Its rule of stability: windows of ``interval_ms`` until three agree within ``spread_pct``.

    They agree on throughput and on the mean latency, or on ``percentile`` (1 to 99) instead.
    """

    interval_ms: int
    spread_pct: float = 10.0
    trials_max: int = 10
    percentile: int | None = None

    @classmethod
    def like_one_window(cls, window_s: float) -> AnalyzerSettings:
        """Exactly three windows, together as long as one of ours, that may differ.

        A level that broke its rule would vanish from its report; rounds like these are judged by
        our rule instead.
        """
        return cls(max(round(1000 * window_s / WINDOWS), 1), _ANY_DIFFERENCE_PCT, WINDOWS)

    @property
    def is_rule(self) -> bool:
        """Whether a level that is not stable ends without figures."""
        return self.spread_pct < _ANY_DIFFERENCE_PCT


@dataclass(frozen=True)
class AnalyzerRound:
    """What perf_analyzer reported of one run. Latencies in ms: ``mean`` and the PERCENTILES.

    ``requests`` and ``server`` are the server's own count over the whole run; the client's CPU
    time includes starting the program (about 10 ms).
    """

    concurrency: int
    round: int
    requests: int
    throughput_rps: float
    latencies_ms: Mapping[str, float]
    client_cpu_us_per_request: float
    server: ServerStatistics | None
    agreed: bool  # its own rule of stability was asked for, and held


def run_perf_analyzer(
    program: Program,
    target: Target,
    *,
    levels: Sequence[int],
    rounds: int,
    settings: AnalyzerSettings,
    on_round: Callable[[AnalyzerRound], None] = lambda measured: None,
) -> tuple[AnalyzerRound, ...]:
    """Load ``target`` at every concurrency of ``levels``, ``rounds`` times each.

    ``on_round`` receives each as soon as it is measured. Raises InputError where the program
    refuses the settings, InfrastructureError where it ends without a report: one failed request
    is enough for that.
    """
    measured = []
    with tempfile.TemporaryDirectory(prefix="trimton-perf-analyzer-") as scratch:
        data = Path(scratch) / "inputs.json"
        write_input_data(data, target.feeds, target.specs, batches=target.batches)
        for round_index in range(rounds):
            for concurrency in levels:
                one = run_once(program, target, data, concurrency, round_index, settings)
                measured.append(one)
                on_round(one)
    return tuple(measured)


def run_once(
    program: Program,
    target: Target,
    data: Path,
    concurrency: int,
    round_index: int,
    settings: AnalyzerSettings,
) -> AnalyzerRound:
    """One run at one concurrency; ``data`` was written by ``write_input_data``."""
    before = target.endpoint.model_statistics(target.model)
    with tempfile.TemporaryDirectory(prefix="trimton-perf-analyzer-") as scratch:
        report = Path(scratch) / "report.csv"
        command = [str(program.path), *_arguments(target, data, report, concurrency, settings)]
        # A window is prolonged where too few requests end within it.
        longest_s = 3 * settings.trials_max * settings.interval_ms / 1000
        cpu_s = _run(command, target, concurrency, timeout_s=_START_S + longest_s)
        row = parse_report(report)
    server = statistics_between(before, target.endpoint.model_statistics(target.model))
    throughput = row["Inferences/Second"]
    measured_s = WINDOWS * settings.interval_ms / 1000
    requests = server.requests if server else round(throughput / target.batch * measured_s)
    return AnalyzerRound(
        concurrency=concurrency,
        round=round_index,
        requests=requests,
        throughput_rps=throughput,
        latencies_ms={
            name: _latency_ms(row, name)
            for name in _LATENCY_COLUMNS
            if name == "mean" or requests >= requests_needed(PERCENTILES[name])
        },
        client_cpu_us_per_request=cpu_s * 1e6 / max(requests, 1),
        server=server,
        agreed=settings.is_rule,
    )


def _latency_ms(row: Mapping[str, float], name: str) -> float:
    for columns in _LATENCY_COLUMNS[name]:
        if row.keys() >= set(columns):
            return sum(row[column] for column in columns) / 1000
    raise InfrastructureError(f"perf_analyzer's report has no column for the latency {name!r}.")


def parse_report(report: Path) -> dict[str, float]:
    """The columns of the only row of a CSV report; InfrastructureError where it has none."""
    try:
        lines = list(csv.DictReader(report.read_text(encoding="utf-8").splitlines()))
        (line,) = lines
        return {column: float(value) for column, value in line.items() if value}
    except (OSError, ValueError, TypeError) as error:
        raise InfrastructureError(
            "perf_analyzer ended without a report of one level; try a longer --window."
        ) from error


def _arguments(
    target: Target, data: Path, report: Path, concurrency: int, settings: AnalyzerSettings
) -> list[str]:
    return [
        *("-m", target.model, "-u", target.url, "-i", target.protocol, "-b", str(target.batch)),
        *("--concurrency-range", str(concurrency), "--input-data", str(data)),
        *("--measurement-interval", str(settings.interval_ms)),
        *("--max-trials", str(settings.trials_max)),
        *("--stability-percentage", f"{settings.spread_pct:g}"),
        *(("--percentile", str(settings.percentile)) if settings.percentile else ()),
        *("--verbose-csv", "-f", str(report)),
    ]


def _run(command: Sequence[str], target: Target, concurrency: int, timeout_s: float) -> float:
    """Run to the end and return the CPU seconds, user and system, that it used."""
    where = f"perf_analyzer at concurrency {concurrency} on {target.url} ({target.protocol})"
    before_s = _children_cpu_s()
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InfrastructureError(
            f"{where} did not end within {timeout_s:.0f} s; check the server."
        ) from error
    if done.returncode:
        kind = InputError if done.returncode == _OPTION_ERROR else InfrastructureError
        raise kind(f"{where} ended with exit code {done.returncode}: {_reason(done.stdout)}")
    return _children_cpu_s() - before_s


def _children_cpu_s() -> float:
    """CPU time of all ended children of this process."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _reason(output: str) -> str:
    """The line that names the error, else the last one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no message"]
    named = [line for line in lines if line.lower().startswith(("error", "failed"))]
    return f"{(named or lines)[-1].removeprefix('error: ').rstrip('.')}."
