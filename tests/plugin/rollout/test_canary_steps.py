"""How a canary goes from share to share: with a clock and arms of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from windows import scheduled_window

from trimton.perf.load.arms import Load
from trimton.perf.results import LoadWindow
from trimton.plugin.rollout.canary import CanaryResult, Step, run_canary
from trimton.plugin.rollout.decision import BASELINE, CANARY
from trimton.plugin.rollout.plan import CanaryPlan

WINDOW_S = 1.0


@dataclass
class Clock:
    """A time that passes with each window."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class FakeArm:
    """An arm whose latency in milliseconds is a function of rate and round."""

    variant: str
    latency_ms: Callable[[float, int], float]
    clock: Clock
    batch: int = 1
    rates: list[float] = field(default_factory=list)

    def measure(self, load: Load) -> LoadWindow:
        assert load.arrivals is not None
        self.clock.now_s += WINDOW_S
        self.rates.append(load.arrivals.rate_rps)
        latency_ms = self.latency_ms(load.arrivals.rate_rps, load.round)
        return scheduled_window(
            self.variant, load.round, latency_ms, rate_rps=load.arrivals.rate_rps
        )


def jitter(number: int) -> float:
    """A little noise, the same each time."""
    return 1 + 0.01 * ((number * 7919) % 5 - 2) / 2


def roll_out(
    ratio: Callable[[float, int], float],
    *,
    shares: Sequence[float] = (5, 25, 100),
    hold_s: float = 20.0,
    patience: float = 5.0,
) -> tuple[CanaryResult, list[Step], FakeArm]:
    clock = Clock()
    arms: Any = (
        FakeArm(BASELINE, lambda rate, number: 5.0, clock),
        FakeArm(CANARY, lambda rate, number: 5.0 * ratio(rate, number), clock),
    )
    steps: list[Step] = []
    plan = CanaryPlan(tuple(shares), hold_s, rate_rps=200.0, patience=patience)
    result = run_canary(arms, plan, on_step=steps.append, clock=clock)
    assert tuple(steps) == result.steps
    return result, steps, arms[1]


def test_an_equal_one_holds_every_share_and_reaches_all_of_the_traffic() -> None:
    result, steps, canary = roll_out(lambda rate, number: jitter(number))

    assert result.outcome == "pass"
    assert [step.rate_rps for step in steps] == [10.0, 50.0, 200.0]
    assert all(20.0 <= step.seconds < 40.0 for step in steps)
    assert sorted(set(canary.rates)) == [10.0, 50.0, 200.0]


def test_a_slower_one_is_stopped_before_the_hold_is_over() -> None:
    result, [step], _ = roll_out(lambda rate, number: 1.1 * jitter(number), hold_s=1000.0)

    assert result.outcome == "fail"
    assert step.seconds < 60


def test_one_that_is_slower_under_more_traffic_only_is_stopped_there() -> None:
    result, steps, _ = roll_out(lambda rate, number: jitter(number) * (1.3 if rate > 100 else 1.0))

    assert [step.outcome for step in steps] == ["pass", "pass", "fail"]
    assert result.outcome == "fail"


def test_what_is_not_clear_pauses_at_the_last_share_until_patience_ends() -> None:
    result, steps, _ = roll_out(lambda rate, number: (0.7, 1.9)[number % 2])

    assert [step.outcome for step in steps] == ["pass", "pass", "inconclusive"]
    assert result.outcome == "inconclusive"
    step = steps[-1]
    assert step.seconds == pytest.approx(5 * 20.0, abs=2 * WINDOW_S)


def test_what_becomes_clear_while_it_pauses_goes_on() -> None:
    result, steps, _ = roll_out(
        lambda rate, number: jitter(number) if number > 5 else (0.9, 1.3)[number % 2],
        hold_s=10.0,
        patience=20.0,
    )

    assert result.outcome == "pass"
    assert steps[-1].seconds > 10.0
