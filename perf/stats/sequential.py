"""Comparisons as questions: rounds go on until each has a clear answer, or the budget is spent.

Clear is "better", "worse" or "equivalent". The intervals are those that may be looked at after
every round (trimton.perf.stats.quantiles), shared among all questions: the chance that any of them
gets a wrong answer is 5 % at most, however many rounds there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from trimton.perf.results import LoadWindow, MetricComparison
from trimton.perf.stats.compare import EQUIVALENCE_MARGIN, compare_variants
from trimton.perf.stats.metrics import METRICS
from trimton.perf.stats.quantiles import Quantile, fixed, shared_among

# Rounds so far, windows so far -> the windows of one round more.
MeasureRounds = Callable[[int, tuple[LoadWindow, ...]], tuple[LoadWindow, ...]]
# "fixed": there was nothing to stop at, the number of rounds was given.
Stop = Literal["clear", "rounds", "budget", "fixed"]

# With fewer no question can be answered, see trimton.perf.stats.quantiles.always_valid.
ROUNDS_MIN = 4


@dataclass(frozen=True)
class Questions:
    """What is asked: is each of ``variants`` better than ``baseline`` in each of ``metrics``.

    ``metrics`` are names of METRICS, each asked at every one of ``levels`` loads; differences
    within ``margin`` are of no interest.
    """

    baseline: str
    variants: Sequence[str]
    metrics: Sequence[str]
    levels: int
    margin: float = EQUIVALENCE_MARGIN

    @property
    def count(self) -> int:
        """The number of answers that are waited for."""
        return len(self.variants) * len(self.metrics) * self.levels

    def compare(
        self,
        windows: Sequence[LoadWindow],
        *,
        seed: int,
        quantile: Quantile,
        metrics: Collection[str] = tuple(METRICS),
    ) -> dict[str, tuple[MetricComparison, ...]]:
        """``metrics`` of every variant."""
        return {
            variant: compare_variants(
                windows,
                baseline=self.baseline,
                variant=variant,
                seed=seed,
                margin=self.margin,
                quantile=quantile,
                metrics=metrics,
            )
            for variant in self.variants
        }

    def answered(self, found: Mapping[str, Sequence[MetricComparison]]) -> int:
        """How many questions have a clear answer in ``found``."""
        return sum(
            comparison.outcome != "inconclusive"
            for comparisons in found.values()
            for comparison in comparisons
            if comparison.name.partition("@")[0] in self.metrics
        )


@dataclass(frozen=True)
class Comparison:
    """What was measured until ``stopped``, and the metrics by variant."""

    windows: tuple[LoadWindow, ...]
    metrics: Mapping[str, tuple[MetricComparison, ...]]
    rounds: int
    seconds: float
    stopped: Stop


def measure_until_clear(
    measure: MeasureRounds,
    questions: Questions,
    *,
    rounds_max: int,
    budget_s: float | None = None,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Comparison:
    """Measure round after round and stop as soon as all ``questions`` are answered.

    ``measure(rounds, windows)`` adds what is missing to ``windows`` so that there are ``rounds``
    rounds. Stops at ``rounds_max``, and before a round that would not end within ``budget_s``.
    Raises ValueError for ``rounds_max`` below 1 and whatever ``measure`` raises.
    """
    if rounds_max < 1:
        raise ValueError(f"at least one round is needed, not {rounds_max}")
    quantile = shared_among(questions.count)
    started = clock()
    windows: tuple[LoadWindow, ...] = ()
    stopped: Stop = "rounds"
    longest_s = 0.0
    rounds = 0
    for rounds in range(1, rounds_max + 1):
        round_started = clock()
        windows = measure(rounds, windows)
        longest_s = max(longest_s, clock() - round_started)
        if rounds >= ROUNDS_MIN:
            found = questions.compare(
                windows, seed=seed, quantile=quantile, metrics=questions.metrics
            )
            if questions.answered(found) == questions.count:
                stopped = "clear"
                break
        if budget_s is not None and clock() - started + longest_s > budget_s:
            stopped = "budget" if rounds < rounds_max else "rounds"
            break
    comparisons = questions.compare(windows, seed=seed, quantile=quantile)
    return Comparison(windows, comparisons, rounds, clock() - started, stopped)


def measure_rounds_fixed(
    measure: MeasureRounds,
    questions: Questions,
    *,
    rounds: int,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Comparison:
    """Measure exactly ``rounds`` rounds; each metric's interval holds the truth with 95 %."""
    started = clock()
    windows = measure(rounds, ())
    metrics = questions.compare(windows, seed=seed, quantile=fixed)
    return Comparison(windows, metrics, rounds, clock() - started, "fixed")
