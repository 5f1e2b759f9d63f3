"""From the windows of all rounds to one summary for each variant at each load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import median

from trimton.perf.measure.histogram import PERCENTILES, requests_needed
from trimton.perf.measure.server_metrics import merge_metrics
from trimton.perf.measure.server_statistics import merge_statistics
from trimton.perf.results import Interval, LatencySummary, LevelSummary, LoadWindow
from trimton.perf.stats.bootstrap import estimate
from trimton.perf.stats.metrics import METRICS, Rounds
from trimton.perf.stats.offered_load import offered_load, schedule_notes
from trimton.perf.stats.streaming import streaming_summary

# perf_analyzer's rule: three windows agree within 10 % on throughput and latency.
STABILITY_LIMIT = 0.10
STABILITY_ROUNDS_MIN = 3
# Above this share of one core the load generator may be what limits the throughput.
CLIENT_CORE_LIMIT = 0.8


def summarise_levels(
    windows: Sequence[LoadWindow], *, seed: int = 0, stability_limit: float = STABILITY_LIMIT
) -> tuple[LevelSummary, ...]:
    """One LevelSummary for each variant, load and batch, in the order of first appearance.

    A level is stable when at least three rounds were measured and the highest throughput and
    mean latency of a round are at most ``1 + stability_limit`` times the lowest.
    """
    keys = list(dict.fromkeys(_key(window) for window in windows))
    grouped = groupby(sorted(windows, key=lambda w: keys.index(_key(w))), key=_key)
    return tuple(
        _summary(Rounds.of(list(members)), seed, stability_limit) for _, members in grouped
    )


def _key(window: LoadWindow) -> tuple[str, int, str | None, float | None, int]:
    return window.variant, window.concurrency, window.arrivals, window.rate_rps, window.batch


def _summary(rounds: Rounds, seed: int, stability_limit: float) -> LevelSummary:
    windows = rounds.windows
    errors: Counter[str] = Counter()
    for window in windows:
        errors.update(window.errors)
    values = {
        "throughput": [w.throughput_rps for w in windows],
        "mean latency": [w.latency_mean_ms for w in windows],
    }
    spreads = {name: _spread(of_rounds) for name, of_rounds in values.items()}
    spread = {name: value for name, value in spreads.items() if value > stability_limit}
    memory = [w.pss_bytes for w in windows if w.pss_bytes is not None]
    percentiles = {name: _estimate(f"latency_{name}_ms", rounds, seed) for name in PERCENTILES}
    mean = _estimate("latency_mean_ms", rounds, seed)
    throughput = _estimate("throughput_rps", rounds, seed)
    assert mean is not None, "every window has a mean latency"
    assert throughput is not None, "every window has a throughput"
    return LevelSummary(
        variant=windows[0].variant,
        concurrency=windows[0].concurrency,
        batch=windows[0].batch,
        rounds=len(windows),
        requests=rounds.requests,
        errors=dict(errors),
        throughput_rps=throughput,
        latency_ms=LatencySummary(mean=mean, **percentiles),
        stable=not spread and len(windows) >= STABILITY_ROUNDS_MIN,
        client_cpu_us_per_request=median(w.client_cpu_us_per_request for w in windows),
        server=merge_statistics([w.server for w in windows if w.server is not None]),
        cpu_ms_per_inference=_median_of("cpu_ms_per_inference", windows),
        notes=(
            *spread_notes(spread, stability_limit),
            *_missing(rounds),
            *schedule_notes(windows),
            *_client_limit(windows),
            *_failures(windows),
        ),
        pss_bytes=max(memory, default=None),
        energy_mj_per_inference=_median_of("energy_mj_per_inference", windows),
        metrics=merge_metrics([w.metrics for w in windows if w.metrics is not None]),
        missing={source: why for w in windows for source, why in w.missing.items()},
        streaming=streaming_summary(windows),
        spread=spread,
        stability_limit=stability_limit,
        **offered_load(rounds, seed),
    )


def spread_notes(spread: Mapping[str, float], limit: float) -> list[str]:
    """The notes of one level about the fields of that name in LevelSummary."""
    return [
        f"{name} differs by {value:.0%} between rounds (limit {limit:.0%})"
        for name, value in spread.items()
    ]


def _estimate(metric: str, rounds: Rounds, seed: int) -> Interval | None:
    statistic = METRICS[metric].statistic(rounds)
    return None if statistic is None else estimate(statistic, len(rounds.windows), seed)


def _median_of(field: str, windows: Sequence[LoadWindow]) -> float | None:
    """The median over the windows that know ``field``."""
    known = [value for w in windows if (value := getattr(w, field)) is not None]
    return median(known) if known else None


def _spread(values: list[float]) -> float:
    return max(values) / min(values) - 1


def _missing(rounds: Rounds) -> list[str]:
    notes = [
        f"{name} needs {requests_needed(share)} requests, but there are {rounds.requests}"
        for name, share in PERCENTILES.items()
        if rounds.requests < requests_needed(share)
    ]
    if len(rounds.windows) < STABILITY_ROUNDS_MIN:
        notes.append(f"stability needs {STABILITY_ROUNDS_MIN} rounds, but there are fewer")
    return notes


def _client_limit(windows: Sequence[LoadWindow]) -> list[str]:
    cores = [w.client_cpu_us_per_request * w.requests / w.duration_s / 1e6 for w in windows]
    shares = [used / w.workers for used, w in zip(cores, windows, strict=True)]
    if median(shares) < CLIENT_CORE_LIMIT:
        return []
    return [f"the load generator used {median(shares):.0%} of a core and may be the limit"]


def _failures(windows: Sequence[LoadWindow]) -> list[str]:
    example = next((w.error_example for w in windows if w.error_example), None)
    return [f"first error: {example}"] if example else []
