"""The steps of a canary on one server: more and more traffic, mirrored to both versions.

A step sends its share of the traffic to the version in service and to the canary, in turn, round
by round: the same requests at the same instants. Nobody else's requests are touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from trimton.perf.load.arms import ServedArm
from trimton.perf.load.rounds import measure_rounds
from trimton.perf.load.schedules import PoissonRate
from trimton.perf.results import LoadWindow
from trimton.perf.stats.quantiles import shared_among
from trimton.plugin.rollout.decision import QUESTIONS_A_STEP, Decision, StepOutcome, decide
from trimton.plugin.rollout.plan import CanaryPlan
from trimton.plugin.rollout.traffic import full_rate

# A window is long enough for a median of its requests.
_REQUESTS_A_WINDOW = 25
_WINDOW_S = (0.5, 10.0)
_SETTLE_S = 0.1


@dataclass(frozen=True)
class Step:
    """One share of the traffic: how it ended and why."""

    share_pct: float
    rate_rps: float
    outcome: StepOutcome
    why: str
    ratio: float | None
    rounds: int
    requests: int
    seconds: float


@dataclass(frozen=True)
class CanaryResult:
    """All steps up to the last that was taken; the outcome is that one's."""

    steps: tuple[Step, ...]
    seconds: float

    @property
    def outcome(self) -> StepOutcome:
        """pass: 100 % was reached and held."""
        return self.steps[-1].outcome


def run_canary(
    arms: tuple[ServedArm, ServedArm],
    plan: CanaryPlan,
    *,
    on_step: Callable[[Step], None] = lambda step: None,
    clock: Callable[[], float] = time.monotonic,
) -> CanaryResult:
    """Take the steps of ``plan`` with the arms (baseline, canary) until one does not pass.

    Raises InfrastructureError when the server answers one of them not at all.
    """
    started = clock()
    rate_rps = full_rate(arms[0], plan.rate_rps)
    steps: list[Step] = []
    for share_pct in plan.shares_pct:
        steps.append(_step(arms, plan, share_pct, rate_rps * share_pct / 100, clock))
        on_step(steps[-1])
        if steps[-1].outcome != "pass":
            break
    return CanaryResult(tuple(steps), clock() - started)


def _step(
    arms: tuple[ServedArm, ServedArm],
    plan: CanaryPlan,
    share_pct: float,
    rate_rps: float,
    clock: Callable[[], float],
) -> Step:
    quantile = shared_among(QUESTIONS_A_STEP * len(plan.shares_pct))
    started = clock()
    windows: tuple[LoadWindow, ...] = ()
    decision = Decision("inconclusive", "nothing was measured")
    rounds = 0
    while True:
        rounds += 1
        windows = measure_rounds(
            arms,
            levels=[PoissonRate(rate_rps)],
            rounds=rounds,
            window_s=window_s(rate_rps),
            warmup_s=_SETTLE_S,
            seed=plan.seed,
            done=windows,
        )
        decision = decide(
            windows,
            max_regression_pct=plan.max_regression_pct,
            must_be_clear=share_pct == plan.shares_pct[-1],
            quantile=quantile,
            seed=plan.seed,
        )
        seconds = clock() - started
        is_clear = decision.outcome != "inconclusive"
        limit_s = plan.hold_s * (1 if is_clear else plan.patience)
        if decision.outcome == "fail" or seconds >= limit_s:
            break
    return Step(
        share_pct=share_pct,
        rate_rps=rate_rps,
        outcome=decision.outcome,
        why=decision.why,
        ratio=None if decision.ratio is None else decision.ratio.value,
        rounds=rounds,
        requests=sum(window.requests for window in windows),
        seconds=seconds,
    )


def window_s(rate_rps: float) -> float:
    """The length of a window: some requests long."""
    shortest, longest = _WINDOW_S
    return min(max(_REQUESTS_A_WINDOW / rate_rps, shortest), longest)
