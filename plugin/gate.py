"""The gate: a policy and what was measured give a verdict.

A limit is held when the whole interval of the observed value lies on its good side, broken when
the whole interval lies on the other, and inconclusive in between, with too few samples, or when
nothing could be observed. The policy says what inconclusive counts as. A variant's outcome is the
worst of its checks: fail, then inconclusive, then pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from trimton.perf.results import Interval
from trimton.perf.stats.proportions import CONFIDENCE
from trimton.perf.verdict import Check, CheckOutcome, VariantVerdict
from trimton.plugin.observations import Measured, Observation, Question, observe
from trimton.plugin.policy import Rules

_WORST_FIRST: tuple[CheckOutcome, ...] = ("fail", "inconclusive", "pass")


def worst(outcomes: Sequence[CheckOutcome]) -> CheckOutcome:
    """The worst of ``outcomes``; "inconclusive" when there are none."""
    return next((o for o in _WORST_FIRST if o in outcomes), "inconclusive")


def judge(policy: Rules, measured: Measured) -> VariantVerdict:
    """Apply every limit of ``policy`` to one variant."""
    checks = tuple(
        check
        for metric, limit in policy.limits.items()
        for question in (Question(metric, limit, policy.confidence_of(limit)),)
        for observation in observe(question, measured)
        for check in _checks(observation, question, policy)
    )
    return VariantVerdict(
        variant=measured.variant,
        digest=measured.digest,
        outcome=worst([check.outcome for check in checks]),
        checks=checks,
    )


def _checks(observation: Observation, question: Question, policy: Rules) -> Iterator[Check]:
    limit = question.limit
    needed = policy.min_samples_of(limit)
    for rule, (observe_rule, upper, unit) in RULES.items():
        bound = getattr(limit, rule)
        if bound is None:
            continue
        observed = observe_rule(observation)
        samples = observation.samples
        outcome, why = _decide(observed, bound, upper, observation.missing)
        if question.confidence != CONFIDENCE and observed is not None:
            why = f"{why} ({100 * question.confidence:g} % confidence)"
        if observed is not None and samples is not None and samples < needed:
            outcome, why = "inconclusive", f"{samples} samples, but the policy asks for {needed}"
        counts_as = policy.inconclusive_of(limit)
        if outcome == "inconclusive" != counts_as:
            outcome, why = counts_as, f"{why}; the policy counts that as {counts_as}"
        yield Check(
            metric=observation.metric,
            rule=rule,
            observed=observed or Interval(value=0.0),
            limit=bound,
            unit=unit or observation.unit,
            samples=(1 if samples is None else samples) if observed else 0,
            outcome=outcome,
            why=why,
            confidence=question.confidence,
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
