"""Stopping as soon as the answer is clear: how often it is wrong, and when it stops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from windows import window

from trimton.perf.stats.sequential import Questions, measure_until_clear

ASKED = Questions("a", ("b",), ("throughput_rps", "cpu_ms_per_inference"), levels=1)


class Machine:
    """Rounds of two arms on a machine that drifts; some windows are disturbed."""

    def __init__(self, seed, ratio=1.0, noise=0.015, disturbed=0.05):
        self.generator = np.random.default_rng(seed)
        self.ratio, self.noise, self.disturbed = ratio, noise, disturbed
        self.speed = 100.0
        self.calls = 0

    def __call__(self, rounds, windows):
        assert len(windows) == 2 * (rounds - 1)
        self.calls += 1
        self.speed *= np.exp(self.generator.normal(0, 0.01))
        return (*windows, self.one("a", rounds, 1.0), self.one("b", rounds, self.ratio))

    def one(self, variant, rounds, ratio):
        noise = self.generator.normal(0, self.noise)
        if self.generator.random() < self.disturbed:
            noise -= abs(self.generator.normal(0, 0.1))
        throughput = self.speed * ratio * np.exp(noise)
        return window(
            variant, rounds - 1, throughput, requests=0, cpu_ms_per_inference=1 / throughput
        )


def outcomes(result):
    return {c.name: c.outcome for c in result.metrics["b"]}


def test_a_clear_difference_stops_long_before_the_limit():
    machine = Machine(0, ratio=0.7, noise=0.005)
    result = measure_until_clear(machine, ASKED, rounds_max=40)
    assert result.stopped == "clear"
    assert result.rounds == machine.calls < 12
    assert outcomes(result)["throughput_rps@1"] == "worse"
    assert outcomes(result)["cpu_ms_per_inference@1"] == "worse"


def test_equal_arms_end_as_equivalent():
    result = measure_until_clear(Machine(1, noise=0.005), ASKED, rounds_max=40)
    assert result.stopped == "clear"
    assert outcomes(result)["throughput_rps@1"] == "equivalent"


def test_what_stays_unclear_ends_at_the_limit_and_is_no_win():
    result = measure_until_clear(Machine(2, noise=0.4, disturbed=0), ASKED, rounds_max=6)
    assert (result.stopped, result.rounds) == ("rounds", 6)
    assert outcomes(result)["throughput_rps@1"] == "inconclusive"


def test_the_detectable_difference_shrinks_with_rounds():
    few = measure_until_clear(Machine(3, noise=0.1), ASKED, rounds_max=8)
    many = measure_until_clear(Machine(3, noise=0.1), ASKED, rounds_max=24)
    assert few.metrics["b"][0].detectable_pct > many.metrics["b"][0].detectable_pct > 0


def test_a_round_that_would_not_end_within_the_budget_is_not_begun():
    now = [0.0]
    machine = Machine(4, noise=0.4)

    def measure(rounds, windows):
        now[0] += 10
        return machine(rounds, windows)

    result = measure_until_clear(measure, ASKED, rounds_max=100, budget_s=55, clock=lambda: now[0])
    assert (result.stopped, result.rounds, result.seconds) == ("budget", 5, 50)


def test_a_question_that_no_round_can_answer_is_not_taken_as_answered():
    asked = Questions("a", ("b",), ("energy_mj_per_inference",), levels=1)
    result = measure_until_clear(Machine(5, noise=0.001), asked, rounds_max=6)
    assert result.stopped == "rounds"


@pytest.mark.parametrize("disturbed", [0.0, 0.15])
def test_noise_is_called_a_difference_in_at_most_one_of_twenty_comparisons(disturbed):
    trials, found = 200, Counter()
    for seed in range(trials):
        machine = Machine(1000 + seed, noise=0.03, disturbed=disturbed)
        result = measure_until_clear(machine, ASKED, rounds_max=20)
        found[bool({"better", "worse"} & set(outcomes(result).values()))] += 1
    assert found[True] <= 0.05 * trials


def test_five_percent_are_found_in_nineteen_of_twenty_comparisons():
    found = 0
    for seed in range(60):
        result = measure_until_clear(Machine(2000 + seed, ratio=0.95), ASKED, rounds_max=30)
        found += outcomes(result)["throughput_rps@1"] == "worse"
    assert found >= 57
