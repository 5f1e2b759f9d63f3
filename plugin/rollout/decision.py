"""After every round: may the canary go on, must it stop, or is it not clear yet?

Both versions got the same recorded requests at the same instants of their rounds, so latencies are
compared round by round. The median must hold the limit, for other programs on the machine hardly
move it; the mean, which hears of slow requests, must not break it. With a small share of the
traffic it takes long to be sure, and nobody's requests are at stake: so only the last step has to
be clear, and the others go on as long as it is not clear that the limit is broken.

The intervals may be looked at after every round and are shared among all questions of all steps: a
version that holds the limit is stopped in 5 % of all canaries at most, and so is one that breaks it
let through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trimton.perf.results import Interval, LoadWindow, MetricComparison
from trimton.perf.stats.compare import compare_variants
from trimton.perf.stats.proportions import share
from trimton.perf.stats.quantiles import Quantile
from trimton.perf.stats.sequential import ROUNDS_MIN

BASELINE, CANARY = "baseline", "canary"
_MEDIAN, _MEAN = "latency_p50_ms", "latency_mean_ms"
QUESTIONS_A_STEP = 2

StepOutcome = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Decision:
    """What the rounds of one step say; ``ratio`` is canary / baseline of the latency."""

    outcome: StepOutcome
    why: str
    ratio: Interval | None = None


def decide(
    windows: Sequence[LoadWindow],
    *,
    max_regression_pct: float,
    must_be_clear: bool,
    quantile: Quantile,
    seed: int,
) -> Decision:
    """Judge the ``windows`` of both arms.

    Fail when the whole interval of the median's or the mean's ratio breaks the limit, or the canary
    fails more requests than the baseline; pass when the whole interval of the median's ratio holds
    it or, unless it ``must_be_clear``, some of it does; else inconclusive.
    """
    failed = [_failed(windows, arm) for arm in (BASELINE, CANARY)]
    if failed[1].low is not None and failed[0].high is not None and failed[1].low > failed[0].high:
        return Decision("fail", f"{failed[1].value:.2%} of its requests failed")
    if len({window.round for window in windows}) < ROUNDS_MIN:
        return _TOO_FEW
    found = {
        comparison.name.partition("@")[0]: comparison
        for comparison in compare_variants(
            windows,
            baseline=BASELINE,
            variant=CANARY,
            seed=seed,
            quantile=quantile,
            metrics=(_MEDIAN, _MEAN),
        )
    }
    limit = 1 + max_regression_pct / 100
    judged = [
        _judge(name, found[key], limit, must_be_clear)
        for key, name in _NAMES.items()
        if key in found
    ]
    broken = [decision for decision in judged if decision.outcome == "fail"]
    return (broken or judged or [_TOO_FEW])[0]


_NAMES = {_MEDIAN: "median", _MEAN: "mean"}
_TOO_FEW = Decision("inconclusive", "there were too few rounds or requests")


def _judge(name: str, found: MetricComparison, limit: float, must_be_clear: bool) -> Decision:
    if found.interval is None:
        return _TOO_FEW
    low, high = found.interval
    ratio = Interval(value=found.ratio, low=low, high=high)
    said = f"its {name} latency is {found.ratio:.3f}x [{low:.3f}, {high:.3f}]"
    if high <= limit:
        return Decision("pass", f"{said}, within {limit:g}x", ratio)
    if low > limit:
        return Decision("fail", f"{said}, above {limit:g}x", ratio)
    if not must_be_clear:
        return Decision("pass", f"{said}, not clearly above {limit:g}x", ratio)
    return Decision("inconclusive", f"{said}, on both sides of {limit:g}x", ratio)


def _failed(windows: Sequence[LoadWindow], arm: str) -> Interval:
    of_arm = [window for window in windows if window.variant == arm]
    errors = sum(sum(window.errors.values()) for window in of_arm)
    return share(errors, errors + sum(window.requests for window in of_arm))
