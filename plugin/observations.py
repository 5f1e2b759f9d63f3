"""What a policy can hold to limits: one function for each metric, and one row of METRICS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import exp, log

from trimton.perf.results import (
    Interval,
    LevelSummary,
    MemoryUse,
    MetricComparison,
    QualitySummary,
)
from trimton.perf.stats.independent import independent_ratio
from trimton.perf.stats.proportions import CONFIDENCE, normal_quantile, share
from trimton.perf.stats.quantiles import fixed
from trimton.plugin.policy import Limit

# Stands for "no noise at all"; float32 resolves about 150 dB.
IDENTICAL_SQNR_DB = 200.0

# Confidence -> comparison of the variant with the baseline, by name ("throughput_rps@4").
Comparisons = Callable[[float], Mapping[str, MetricComparison]]


@dataclass(frozen=True)
class Measured:
    """All that was measured of one variant and of the baseline beside it.

    Summaries have 95 % intervals; ``comparisons`` are made for the confidence that is asked for.
    """

    variant: str
    digest: str
    size_bytes: int
    baseline_size_bytes: int
    quality: QualitySummary
    memory: MemoryUse
    baseline_memory: MemoryUse
    levels: Mapping[int, LevelSummary]
    comparisons: Comparisons


@dataclass(frozen=True)
class Question:
    """One metric, the limit it is observed for, and the level of the intervals."""

    metric: str
    limit: Limit
    confidence: float = CONFIDENCE


@dataclass(frozen=True)
class Observation:
    """One metric of one variant at one place.

    ``value`` is in ``unit``; ``ratio`` is variant / baseline; ``drop`` is baseline - variant.
    None = not observed, for the reason ``missing``. ``samples`` is None for what is exact.
    """

    metric: str
    unit: str
    higher_is_better: bool
    samples: int | None
    value: Interval | None
    ratio: Interval | None = None
    drop: Interval | None = None
    missing: str = "not measured"


def observe(question: Question, measured: Measured) -> Iterator[Observation]:
    """What was measured of the question's metric; one for each level, where there are some."""
    return METRICS[question.metric](question, measured)


# --- quality, size and memory --------------------------------------------------------------------


def _accuracy(question: Question, measured: Measured) -> Iterator[Observation]:
    quality = measured.quality
    value = _share(quality.accuracy, quality.samples, question)
    drop, ratio = _drop(quality.accuracy_drop, question), None
    if value is not None and drop is not None and value.value + drop.value > 0:
        baseline = value.value + drop.value
        ratio = Interval(
            value=1 - drop.value / baseline,
            low=None if drop.high is None else 1 - drop.high / baseline,
            high=None if drop.low is None else 1 - drop.low / baseline,
        )
    yield Observation(
        question.metric,
        "share",
        True,
        quality.samples,
        value,
        ratio,
        drop,
        missing="the evaluation samples have no labels",
    )


def _agreement(question: Question, measured: Measured) -> Iterator[Observation]:
    quality = measured.quality
    value = _share(quality.agreement, quality.samples, question)
    yield Observation(question.metric, "share", True, quality.samples, value)


def _sqnr(question: Question, measured: Measured) -> Iterator[Observation]:
    quality = measured.quality
    value = IDENTICAL_SQNR_DB if quality.sqnr_db is None else quality.sqnr_db
    yield Observation(question.metric, "dB", True, quality.samples, Interval(value=value))


def _size(question: Question, measured: Measured) -> Iterator[Observation]:
    ratio = Interval(value=measured.size_bytes / measured.baseline_size_bytes)
    value = Interval(value=measured.size_bytes)
    yield Observation(question.metric, "bytes", False, None, value, ratio)


def _memory(question: Question, measured: Measured) -> Iterator[Observation]:
    readings = measured.memory.under_load_readings
    ratio = independent_ratio(
        readings, measured.baseline_memory.under_load_readings, question.confidence
    )
    low, high = min(readings), max(readings)
    value = Interval(value=measured.memory.under_load_pss_bytes, low=low, high=high)
    yield Observation(question.metric, "bytes", False, len(readings), value, ratio)


# --- under load, at each level -------------------------------------------------------------------


def _throughput(question: Question, measured: Measured) -> Iterator[Observation]:
    def at(level: LevelSummary) -> tuple[Interval | None, str]:
        return level.throughput_rps, ""

    return _at_levels(question, measured, at, "infer/s", higher_is_better=True)


def _latency(question: Question, measured: Measured) -> Iterator[Observation]:
    which = question.metric.removeprefix("latency_").removesuffix("_ms")

    def at(level: LevelSummary) -> tuple[Interval | None, str]:
        missing = f"too few requests for {which}; use longer windows or more rounds"
        return getattr(level.latency_ms, which), missing

    return _at_levels(question, measured, at, "ms")


def _cpu(question: Question, measured: Measured) -> Iterator[Observation]:
    def at(level: LevelSummary) -> tuple[Interval | None, str]:
        return _point(level.cpu_ms_per_inference), "the server's processes were not seen"

    return _at_levels(question, measured, at, "ms")


def _energy(question: Question, measured: Measured) -> Iterator[Observation]:
    def at(level: LevelSummary) -> tuple[Interval | None, str]:
        why = "; ".join(level.missing.values()) or "this machine counts no energy"
        return _point(level.energy_mj_per_inference), why

    return _at_levels(question, measured, at, "mJ")


def _error_rate(question: Question, measured: Measured) -> Iterator[Observation]:
    for name, level in _levels(question, measured):
        if level is None:
            yield _unmeasured(question, name, "share")
            continue
        errors = sum(level.errors.values())
        total = level.requests + errors
        value = share(errors, total, question.confidence) if total else None
        yield Observation(name, "share", False, total, value)


def _at_levels(
    question: Question,
    measured: Measured,
    at: Callable[[LevelSummary], tuple[Interval | None, str]],
    unit: str,
    *,
    higher_is_better: bool = False,
) -> Iterator[Observation]:
    """The value that ``at`` gives, or why there is none, beside the ratio to the baseline."""
    comparisons = measured.comparisons(question.confidence)
    for name, level in _levels(question, measured):
        if level is None:
            yield _unmeasured(question, name, unit)
            continue
        value, missing = at(level)
        comparison = comparisons.get(f"{question.metric}@{level.concurrency}")
        yield Observation(
            name,
            unit,
            higher_is_better,
            level.rounds,
            None if value is None else _over_rounds(value, level.rounds, question.confidence),
            None if comparison is None else _ratio(comparison),
            missing=missing or "not measured",
        )


def _levels(question: Question, measured: Measured) -> Iterator[tuple[str, LevelSummary | None]]:
    """The levels that a limit applies to, with the metric's name there; None = not measured."""
    asked = question.limit.concurrency
    for concurrency in sorted(measured.levels) if asked is None else asked:
        yield f"{question.metric} @ {concurrency}", measured.levels.get(concurrency)
    if not measured.levels and asked is None:
        yield question.metric, None


def _unmeasured(question: Question, name: str, unit: str) -> Observation:
    return Observation(name, unit, False, 0, None, missing="the run did not measure this level")


# --- intervals at another confidence -------------------------------------------------------------


def _point(value: float | None) -> Interval | None:
    return None if value is None else Interval(value=value)


def _ratio(comparison: MetricComparison) -> Interval:
    low, high = comparison.interval or (None, None)
    return Interval(value=comparison.ratio, low=low, high=high)


def _share(observed: Interval | None, samples: int, question: Question) -> Interval | None:
    if observed is None:
        return None
    return share(round(observed.value * samples), samples, question.confidence)


def _drop(observed: Interval | None, question: Question) -> Interval | None:
    """A difference of shares, whose interval is so many standard errors to each side."""
    if observed is None or observed.low is None or observed.high is None:
        return observed
    centre, half = (observed.low + observed.high) / 2, (observed.high - observed.low) / 2
    half *= normal_quantile(question.confidence) / normal_quantile(CONFIDENCE)
    return Interval(
        value=observed.value,
        low=max(min(centre - half, observed.value), -1.0),
        high=min(max(centre + half, observed.value), 1.0),
    )


def _over_rounds(observed: Interval, rounds: int, confidence: float) -> Interval:
    """A positive value over rounds, whose interval is Student's on the logarithmic scale."""
    if observed.low is None or observed.high is None or confidence == CONFIDENCE:
        return observed
    wider = fixed(rounds, 1 - confidence) / fixed(rounds)
    return Interval(
        value=observed.value,
        low=observed.value * exp(wider * log(observed.low / observed.value)),
        high=observed.value * exp(wider * log(observed.high / observed.value)),
    )


METRICS: Mapping[str, Callable[[Question, Measured], Iterator[Observation]]] = {
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
    "cpu_ms_per_inference": _cpu,
    "energy_mj_per_inference": _energy,
    "error_rate": _error_rate,
}
