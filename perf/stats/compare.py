"""A variant against the baseline, metric by metric, with an outcome that noise cannot buy."""

from __future__ import annotations

from collections.abc import Sequence

from trimton.perf.results import Interval, LoadWindow, MetricComparison, Outcome
from trimton.perf.stats.bootstrap import ratio, value_of
from trimton.perf.stats.metrics import METRICS, Metric, Rounds

# Differences below this share are of no practical use, however surely they are measured.
EQUIVALENCE_MARGIN = 0.03


def compare_variants(
    windows: Sequence[LoadWindow],
    *,
    baseline: str,
    variant: str,
    seed: int = 0,
    margin: float = EQUIVALENCE_MARGIN,
) -> tuple[MetricComparison, ...]:
    """Every metric of METRICS at every concurrency that both variants were loaded with.

    Only rounds that both have count, as pairs. A metric that one side lacks (a percentile with
    too few requests behind it, CPU time of a remote server) is left out.
    """
    comparisons = []
    levels = dict.fromkeys(w.concurrency for w in windows if w.variant == baseline)
    for concurrency in levels:
        at_level = [w for w in windows if w.concurrency == concurrency]
        sides = [{w.round: w for w in at_level if w.variant == v} for v in (baseline, variant)]
        common = sides[0].keys() & sides[1].keys()
        if not common:
            continue
        before, after = (Rounds.of([side[r] for r in common]) for side in sides)
        for name, metric in METRICS.items():
            found = _compare(name, metric, before, after, concurrency, seed, margin)
            if found is not None:
                comparisons.append(found)
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


def _compare(
    name: str,
    metric: Metric,
    before: Rounds,
    after: Rounds,
    concurrency: int,
    seed: int,
    margin: float,
) -> MetricComparison | None:
    baseline, variant = metric.statistic(before), metric.statistic(after)
    if baseline is None or variant is None:
        return None
    rounds = len(before.windows)
    found = ratio(variant, baseline, rounds, seed)
    interval = None if found.low is None or found.high is None else (found.low, found.high)
    return MetricComparison(
        name=f"{name}@{concurrency}",
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        baseline=value_of(baseline, rounds),
        variant=value_of(variant, rounds),
        ratio=found.value,
        interval=interval,
        outcome=judge(found, higher_is_better=metric.higher_is_better, margin=margin),
        concurrency=concurrency,
    )
