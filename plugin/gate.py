"""The gate: a policy and what was measured give a verdict.

A limit is held when the whole 95 % interval of the observed value lies on its good side, broken
when the whole interval lies on the other, and inconclusive in between or when nothing could be
observed. A variant's outcome is the worst of its checks: fail, then inconclusive, then pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from trimton.perf.results import (
    Interval,
    LevelSummary,
    MemoryUse,
    MetricComparison,
    QualitySummary,
)
from trimton.perf.stats.independent import independent_ratio
from trimton.perf.stats.proportions import share
from trimton.perf.verdict import Check, CheckOutcome, VariantVerdict
from trimton.plugin.policy import Limit, Policy

# Stands for "no noise at all"; float32 resolves about 150 dB.
IDENTICAL_SQNR_DB = 200.0

_WORST_FIRST: tuple[CheckOutcome, ...] = ("fail", "inconclusive", "pass")


@dataclass(frozen=True)
class Measured:
    """All that was measured of one variant and of the baseline beside it."""

    variant: str
    digest: str
    size_bytes: int
    baseline_size_bytes: int
    quality: QualitySummary
    memory: MemoryUse
    baseline_memory: MemoryUse
    levels: Mapping[int, LevelSummary]
    comparisons: Mapping[str, MetricComparison]


@dataclass(frozen=True)
class Observation:
    """One metric of one variant at one place.

    ``value`` is in ``unit``; ``ratio`` is variant / baseline; ``drop`` is baseline - variant.
    None = not observed, for the reason ``missing``.
    """

    metric: str
    unit: str
    higher_is_better: bool
    samples: int
    value: Interval | None
    ratio: Interval | None = None
    drop: Interval | None = None
    missing: str = "not measured"


def worst(outcomes: Sequence[CheckOutcome]) -> CheckOutcome:
    """The worst of ``outcomes``; "inconclusive" when there are none."""
    return next((o for o in _WORST_FIRST if o in outcomes), "inconclusive")


def judge(policy: Policy, measured: Measured) -> VariantVerdict:
    """Apply every limit of ``policy`` to one variant."""
    checks = tuple(
        check
        for metric, limit in policy.limits.items()
        for observation in METRICS[metric](metric, measured, limit)
        for check in _checks(observation, limit)
    )
    return VariantVerdict(
        variant=measured.variant,
        digest=measured.digest,
        outcome=worst([check.outcome for check in checks]),
        checks=checks,
    )


def _checks(observation: Observation, limit: Limit) -> Iterator[Check]:
    for rule, (observe, upper, unit) in RULES.items():
        bound = getattr(limit, rule)
        if bound is None:
            continue
        observed = observe(observation)
        outcome, why = _decide(observed, bound, upper, observation.missing)
        yield Check(
            metric=observation.metric,
            rule=rule,
            observed=observed or Interval(value=0.0),
            limit=bound,
            unit=unit or observation.unit,
            samples=observation.samples if observed else 0,
            outcome=outcome,
            why=why,
        )


def _decide(
    observed: Interval | None, bound: float, upper: bool, missing: str
) -> tuple[CheckOutcome, str]:
    """Compare an interval with a bound that is an upper limit, or a lower one."""
    if observed is None:
        return "inconclusive", missing
    low = observed.value if observed.low is None else observed.low
    high = observed.value if observed.high is None else observed.high
    side = "at most" if upper else "at least"
    exact = low == high
    if (high <= bound) if upper else (low >= bound):
        return "pass", f"{'it is' if exact else 'the whole interval is'} {side} the limit"
    if (low > bound) if upper else (high < bound):
        where = "above" if upper else "below"
        return "fail", f"{'it is' if exact else 'the whole interval is'} {where} the limit"
    return "inconclusive", "the interval holds the limit; more samples or rounds would narrow it"


# --- rules: what of an observation is compared, whether the bound is an upper one, its unit ------


def _regression_pct(observation: Observation) -> Interval | None:
    ratio = observation.ratio
    if ratio is None:
        return None
    sign = -1.0 if observation.higher_is_better else 1.0
    ends = [
        None if end is None else sign * (end - 1) * 100
        for end in (ratio.value, ratio.low, ratio.high)
    ]
    value, low, high = ends
    if low is not None and high is not None and low > high:
        low, high = high, low
    return Interval(value=value or 0.0, low=low, high=high)


def _improvement_pct(observation: Observation) -> Interval | None:
    worse = _regression_pct(observation)
    if worse is None:
        return None
    return Interval(
        value=-worse.value,
        low=None if worse.high is None else -worse.high,
        high=None if worse.low is None else -worse.low,
    )


RULES: dict[str, tuple[Callable[[Observation], Interval | None], bool, str]] = {
    "max": (lambda o: o.value, True, ""),
    "min": (lambda o: o.value, False, ""),
    "max_drop": (lambda o: o.drop, True, ""),
    "max_regression_pct": (_regression_pct, True, "%"),
    "min_improvement_pct": (_improvement_pct, False, "%"),
}


# --- metrics: where each is observed --------------------------------------------------------------


def _accuracy(metric: str, measured: Measured, limit: Limit) -> Iterator[Observation]:
    quality = measured.quality
    ratio = None
    if quality.accuracy is not None and quality.accuracy_drop is not None:
        drop = quality.accuracy_drop
        baseline = quality.accuracy.value + drop.value
        if baseline > 0:
            ratio = Interval(
                value=1 - drop.value / baseline,
                low=None if drop.high is None else 1 - drop.high / baseline,
                high=None if drop.low is None else 1 - drop.low / baseline,
            )
    yield Observation(
        metric,
        "share",
        True,
        quality.samples,
        quality.accuracy,
        ratio,
        quality.accuracy_drop,
        missing="the evaluation samples have no labels",
    )


def _agreement(metric: str, measured: Measured, limit: Limit) -> Iterator[Observation]:
    quality = measured.quality
    yield Observation(metric, "share", True, quality.samples, quality.agreement)


def _sqnr(metric: str, measured: Measured, limit: Limit) -> Iterator[Observation]:
    quality = measured.quality
    value = IDENTICAL_SQNR_DB if quality.sqnr_db is None else quality.sqnr_db
    yield Observation(metric, "dB", True, quality.samples, Interval(value=value))


def _size(metric: str, measured: Measured, limit: Limit) -> Iterator[Observation]:
    ratio = Interval(value=measured.size_bytes / measured.baseline_size_bytes)
    yield Observation(metric, "bytes", False, 1, Interval(value=measured.size_bytes), ratio)


def _memory(metric: str, measured: Measured, limit: Limit) -> Iterator[Observation]:
    readings = measured.memory.under_load_readings
    ratio = independent_ratio(readings, measured.baseline_memory.under_load_readings)
    low, high = min(readings), max(readings)
    value = Interval(value=measured.memory.under_load_pss_bytes, low=low, high=high)
    yield Observation(metric, "bytes", False, len(readings), value, ratio)


def _levels(measured: Measured, limit: Limit) -> Iterator[LevelSummary]:
    for concurrency, level in sorted(measured.levels.items()):
        if limit.concurrency is None or concurrency in limit.concurrency:
            yield level


def _throughput(metric: str, measured: Measured, limit: Limit) -> Iterator[Observation]:
    for level in _levels(measured, limit):
        name = f"{metric} @ {level.concurrency}"
        ratio = _compared(measured, metric, level)
        yield Observation(name, "infer/s", True, level.rounds, level.throughput_rps, ratio)


def _latency(metric: str, measured: Measured, limit: Limit) -> Iterator[Observation]:
    which = metric.removeprefix("latency_").removesuffix("_ms")
    for level in _levels(measured, limit):
        yield Observation(
            f"{metric} @ {level.concurrency}",
            "ms",
            False,
            level.rounds,
            getattr(level.latency_ms, which),
            _compared(measured, metric, level),
            missing=f"too few requests for {which}; use longer windows or more rounds",
        )


def _error_rate(metric: str, measured: Measured, limit: Limit) -> Iterator[Observation]:
    for level in _levels(measured, limit):
        errors = sum(level.errors.values())
        total = level.requests + errors
        name = f"{metric} @ {level.concurrency}"
        value = share(errors, total) if total else None
        yield Observation(name, "share", False, total, value)


def _compared(measured: Measured, metric: str, level: LevelSummary) -> Interval | None:
    comparison = measured.comparisons.get(f"{metric}@{level.concurrency}")
    if comparison is None:
        return None
    low, high = comparison.interval or (None, None)
    return Interval(value=comparison.ratio, low=low, high=high)


METRICS: dict[str, Callable[[str, Measured, Limit], Iterator[Observation]]] = {
    "accuracy": _accuracy,
    "agreement": _agreement,
    "sqnr_db": _sqnr,
    "size_bytes": _size,
    "memory_bytes": _memory,
    "throughput_rps": _throughput,
    "latency_mean_ms": _latency,
    "latency_p50_ms": _latency,
    "latency_p90_ms": _latency,
    "latency_p95_ms": _latency,
    "latency_p99_ms": _latency,
    "error_rate": _error_rate,
}
