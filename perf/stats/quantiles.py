"""How many standard errors an interval reaches to each side.

A number of rounds that was fixed before asks for Student's quantile. Who looks after every round
and stops as soon as the answer is clear makes many tests, and with Student's quantile would call
noise a difference far more often than promised. ``always_valid`` is wide enough for any number of
looks: with the promised probability, the intervals of *all* of them hold the truth at once.

It inverts a test martingale, the likelihood ratio of Student's statistic between an effect with a
normal prior (in standard deviations of a round, variance 1/PRIOR_ROUNDS) and none. Whatever the
true standard deviation is, that ratio ever exceeds 1/error_rate with probability error_rate at
most (Ville's inequality). Sources: Lai 1976, "On confidence sequences"; Wang and Ramdas, "Anytime-
valid t-tests and confidence sequences for Gaussian means with unknown variance",
arXiv:2310.03722, the Gaussian mixture. The guarantee is for normal noise and rules of stopping
that look at the statistic alone; ``benchmarks/false_alarms.py`` counts what becomes of it with
trimmed means, noise of other kinds, and the rule that also stops at "equivalent".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf, sqrt

from scipy.stats import t as student_t

# Rounds -> standard errors. Infinite where so few rounds allow no answer.
Quantile = Callable[[float], float]

ERROR_RATE = 0.05
# Differences worth finding are one or two standard deviations of a round.
PRIOR_ROUNDS = 0.5


def fixed(rounds: float, error_rate: float = ERROR_RATE) -> float:
    """Student's quantile for an interval of confidence ``1 - error_rate``, asked for once."""
    return float(student_t.ppf(1 - error_rate / 2, rounds - 1)) if rounds > 1 else inf


def always_valid(rounds: float, error_rate: float = ERROR_RATE) -> float:
    """The quantile for an interval that may be looked at after every round."""
    if rounds < 2:
        return inf
    shrinkage = PRIOR_ROUNDS / (rounds + PRIOR_ROUNDS)
    limit = (1 / (error_rate * sqrt(shrinkage))) ** (2 / rounds)
    if limit * shrinkage >= 1:
        return inf
    return sqrt((rounds - 1) * (limit - 1) / (1 - limit * shrinkage))


def shared_among(questions: int) -> Quantile:
    """``always_valid`` such that all of ``questions`` together keep ERROR_RATE (Bonferroni)."""
    return partial(always_valid, error_rate=ERROR_RATE / questions)
