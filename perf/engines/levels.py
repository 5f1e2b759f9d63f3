"""The rounds of perf_analyzer as the level summaries that every table and report takes."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from trimton.perf.engines.perf_analyzer import AnalyzerRound, Target
from trimton.perf.engines.program import Program
from trimton.perf.measure.histogram import PERCENTILES
from trimton.perf.measure.server_statistics import merge_statistics
from trimton.perf.results import Interval, LatencySummary, LevelSummary
from trimton.perf.stats.bootstrap import estimate, median_of
from trimton.perf.stats.levels import STABILITY_LIMIT, STABILITY_ROUNDS_MIN

_NOTE = (
    "measured by perf_analyzer {version} over {protocol}: latency starts at the actual send, "
    "percentiles are medians of those of its rounds"
)


def summarise_analyzer(
    measured: Sequence[AnalyzerRound],
    program: Program,
    target: Target,
    *,
    seed: int = 0,
    stability_limit: float = STABILITY_LIMIT,
) -> tuple[LevelSummary, ...]:
    """One LevelSummary for each concurrency, in the order of first appearance.

    Every figure is the median over rounds of what perf_analyzer reported, its percentiles
    included: it gives no histogram that could be merged.
    """
    levels = dict.fromkeys(one.concurrency for one in measured)
    return tuple(
        _summary(
            [one for one in measured if one.concurrency == level],
            program,
            target,
            seed,
            stability_limit,
        )
        for level in levels
    )


def _summary(
    rounds: Sequence[AnalyzerRound],
    program: Program,
    target: Target,
    seed: int,
    stability_limit: float,
) -> LevelSummary:
    throughputs = [one.throughput_rps for one in rounds]
    means_ms = [one.latencies_ms["mean"] for one in rounds]
    agrees = all(max(v) <= (1 + stability_limit) * min(v) for v in (throughputs, means_ms))
    return LevelSummary(
        variant=target.variant,
        concurrency=rounds[0].concurrency,
        batch=target.batch,
        rounds=len(rounds),
        requests=sum(one.requests for one in rounds),
        errors={},  # it ends at the first failed request
        throughput_rps=_over_rounds(throughputs, seed),
        latency_ms=LatencySummary(
            mean=_over_rounds(means_ms, seed),
            **{name: _percentile(name, rounds, seed) for name in PERCENTILES},
        ),
        stable=all(one.agreed for one in rounds)
        or (agrees and len(rounds) >= STABILITY_ROUNDS_MIN),
        client_cpu_us_per_request=median(one.client_cpu_us_per_request for one in rounds),
        server=merge_statistics([one.server for one in rounds if one.server is not None]),
        notes=(_NOTE.format(version=program.version, protocol=target.protocol),),
    )


def _percentile(name: str, rounds: Sequence[AnalyzerRound], seed: int) -> Interval | None:
    values = [one.latencies_ms[name] for one in rounds if name in one.latencies_ms]
    return _over_rounds(values, seed) if len(values) == len(rounds) else None


def _over_rounds(values: Sequence[float], seed: int) -> Interval:
    return estimate(median_of(values), len(values), seed)
