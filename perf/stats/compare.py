"""A variant against the baseline, metric by metric, with an outcome that noise cannot buy."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import isfinite

from trimton.perf.results import Interval, LoadWindow, MetricComparison, Outcome
from trimton.perf.stats.bootstrap import log_ratio_error, value_of
from trimton.perf.stats.metrics import METRICS, Metric, Rounds
from trimton.perf.stats.paired import RatioEstimate, paired_ratio
from trimton.perf.stats.quantiles import Quantile, fixed

# Differences below this share are of no practical use, however surely they are measured.
EQUIVALENCE_MARGIN = 0.03


def compare_variants(
    windows: Sequence[LoadWindow],
    *,
    baseline: str,
    variant: str,
    seed: int = 0,
    margin: float = EQUIVALENCE_MARGIN,
    quantile: Quantile = fixed,
    metrics: Collection[str] = tuple(METRICS),
) -> tuple[MetricComparison, ...]:
    """Each of ``metrics`` (names of METRICS) at every load that both had, in flight or by schedule.

    Only rounds that both have count, as pairs. A metric that one side lacks (a percentile with
    too few requests behind it, CPU time of a remote server) is left out. ``quantile`` decides how
    wide the intervals are: the default is for a number of rounds that was fixed before.
    """
    comparisons = []
    for load in dict.fromkeys(_load(w) for w in windows if w.variant == baseline):
        at_level = [w for w in windows if _load(w) == load]
        sides = [{w.round: w for w in at_level if w.variant == v} for v in (baseline, variant)]
        common = sides[0].keys() & sides[1].keys()
        if not common:
            continue
        before, after = (Rounds.of([side[r] for r in common]) for side in sides)
        for name in metrics:
            estimate = _estimate(METRICS[name], before, after, seed)
            if estimate is not None:
                comparisons.append(_comparison(name, estimate, before, margin, quantile))
    return tuple(comparisons)


def judge(interval: Interval, *, higher_is_better: bool, margin: float) -> Outcome:
    """The outcome of a ratio variant / baseline.

    "equivalent" when the whole interval lies within the margin, [1/(1+margin), 1+margin];
    else "better" or "worse" when the whole interval lies on one side of 1; else "inconclusive".
    A ratio without an interval is inconclusive.
    """
    low, high = interval.low, interval.high
    if low is None or high is None:
        return "inconclusive"
    if low >= 1 / (1 + margin) and high <= 1 + margin:
        return "equivalent"
    if low > 1:
        return "better" if higher_is_better else "worse"
    if high < 1:
        return "worse" if higher_is_better else "better"
    return "inconclusive"


def _estimate(metric: Metric, before: Rounds, after: Rounds, seed: int) -> RatioEstimate | None:
    """From the pairs of rounds; where a round is too short for a percentile, from all together."""
    values = metric.per_round(after), metric.per_round(before)
    if values[0] is not None and values[1] is not None:
        return paired_ratio(values[0], values[1])
    variant, baseline = metric.statistic(after), metric.statistic(before)
    if variant is None or baseline is None:
        return None
    rounds = len(before.windows)
    return RatioEstimate(
        baseline=value_of(baseline, rounds),
        variant=value_of(variant, rounds),
        standard_error=log_ratio_error(variant, baseline, rounds, seed),
        effective_rounds=rounds,
    )


def _load(window: LoadWindow) -> tuple[int, str | None, float | None]:
    return window.concurrency, window.arrivals, window.rate_rps


def _comparison(
    name: str, estimate: RatioEstimate, before: Rounds, margin: float, quantile: Quantile
) -> MetricComparison:
    metric = METRICS[name]
    concurrency, arrivals, rate_rps = _load(before.windows[0])
    reach = quantile(estimate.effective_rounds)
    # So few rounds allow no answer where the quantile is infinite.
    interval = estimate.interval(reach) if isfinite(reach) else None
    detectable = estimate.detectable(reach)
    low, high = interval or (None, None)
    found = Interval(value=estimate.ratio, low=low, high=high)
    return MetricComparison(
        name=f"{name}@{concurrency}" if arrivals is None else f"{name}@{rate_rps:g}/s",
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        baseline=estimate.baseline,
        variant=estimate.variant,
        ratio=estimate.ratio,
        interval=interval,
        outcome=judge(found, higher_is_better=metric.higher_is_better, margin=margin),
        concurrency=concurrency if arrivals is None else None,
        rate_rps=rate_rps,
        detectable_pct=(
            None if detectable is None or not isfinite(detectable) else 100 * (detectable - 1)
        ),
    )
