"""What the rounds of a canary say: on, stop, or not clear yet."""

from __future__ import annotations

import numpy as np
import pytest
from windows import scheduled_window

from trimton.perf.results import LoadWindow
from trimton.perf.stats.quantiles import shared_among
from trimton.plugin.rollout.decision import BASELINE, CANARY, Decision, decide


def canary(
    rounds: int,
    slower: float,
    noise: float = 0.01,
    seed: int = 0,
    errors: int = 0,
) -> list[LoadWindow]:
    """Rounds whose canary takes ``slower`` times the baseline's latency, on a drifting machine."""
    draw = np.random.default_rng(seed)
    windows = []
    for number in range(rounds):
        drift = 5.0 * (1 + 0.05 * number)
        for variant, factor in ((BASELINE, 1.0), (CANARY, slower)):
            latency_ms = drift * factor * float(np.exp(draw.normal(0, noise)))
            failed = errors if variant == CANARY else 0
            windows.append(scheduled_window(variant, number, latency_ms, failed))
    return windows


def judged(windows: list[LoadWindow], *, must_be_clear: bool = True) -> Decision:
    return decide(
        windows,
        max_regression_pct=5,
        must_be_clear=must_be_clear,
        quantile=shared_among(6),
        seed=0,
    )


def test_an_equal_one_passes_and_a_slower_one_fails() -> None:
    assert judged(canary(12, 1.0)).outcome == "pass"
    assert judged(canary(12, 0.7)).outcome == "pass"
    slow = judged(canary(12, 1.10))
    assert slow.outcome == "fail"
    assert slow.ratio is not None
    assert slow.ratio.value == pytest.approx(1.10, abs=0.02)
    assert "above 1.05x" in slow.why


def test_few_or_noisy_rounds_are_not_clear() -> None:
    assert judged(canary(2, 2.0)).outcome == "inconclusive"
    noisy = judged(canary(8, 1.0, noise=0.2))
    assert noisy.outcome == "inconclusive"
    assert "on both sides of 1.05x" in noisy.why


def test_below_all_of_the_traffic_it_goes_on_unless_it_is_clearly_slower() -> None:
    unclear = canary(8, 1.1, noise=0.2)

    assert judged(unclear).outcome == "inconclusive"
    assert judged(unclear, must_be_clear=False).outcome == "pass"
    assert judged(unclear[:4], must_be_clear=False).outcome == "inconclusive"
    assert judged(canary(12, 1.1), must_be_clear=False).outcome == "fail"


def test_errors_stop_a_canary_at_once_however_fast_it_is() -> None:
    stopped = judged(canary(1, 0.5, errors=10))

    assert stopped.outcome == "fail"
    assert stopped.why == "16.67% of its requests failed"


def test_a_slow_tail_stops_a_canary_whose_median_is_as_fast() -> None:
    windows = [
        w.model_copy(
            update={"latency_mean_ms": w.latency_mean_ms * (2 if w.variant == CANARY else 1)}
        )
        for w in canary(12, 1.0)
    ]

    stopped = judged(windows)
    assert stopped.outcome == "fail"
    assert "mean latency" in stopped.why


def test_a_single_error_in_many_requests_is_no_proof() -> None:
    assert judged([*canary(12, 1.0)[:-1], scheduled_window(CANARY, 11, 7.7, 1)]).outcome == "pass"


def test_looking_after_every_round_stops_few_equals() -> None:
    def is_ever_stopped(seed: int) -> bool:
        windows = canary(24, 1.0, noise=0.05, seed=seed)
        looks = (judged(windows[: 2 * rounds]) for rounds in range(4, 25))
        return any(look.outcome == "fail" for look in looks)

    # One step of three may err in 5 % / 3 of all cases, and only beyond 5 % more latency.
    assert sum(is_ever_stopped(seed) for seed in range(20)) <= 1
