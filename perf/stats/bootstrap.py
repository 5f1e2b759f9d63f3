"""Bootstrap intervals over rounds.

The round, not the request, is the sampling unit: requests within a round share the state of
the machine and are not independent. A resample is a vector of weights, how often each round was
drawn, and a statistic is a function of such weights; so a mean, a median, a percentile of merged
histograms and the ratio of two arms all go the same way, and two arms that were measured in the
same rounds are resampled together (paired).

With the 3 to 10 rounds of a load test the percentile bootstrap is far too narrow. The interval
here is the bootstrap standard error times Student's t, widened by ``sqrt(n / (n - 1))`` for the
narrowness of resampling n values (Hesterberg 2015, "What Teachers Should Know About the
Bootstrap", section 5); for the mean it equals Student's interval. Positive quantities are
treated on the logarithmic scale, so that the interval of A/B is the inverse of that of B/A.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student_t

from trimton.perf.results import Interval

Vector = npt.NDArray[np.float64]
# Weights [resamples, rounds] -> values [resamples].
Statistic = Callable[[npt.NDArray[np.int64]], Vector]

CONFIDENCE = 0.95
RESAMPLES = 2000


def resample_weights(rounds: int, seed: int, resamples: int = RESAMPLES) -> npt.NDArray[np.int64]:
    """How often each round is drawn in each resample, int64 [resamples, rounds]."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(rounds, np.full(rounds, 1 / rounds), size=resamples)


def mean_of(values: npt.ArrayLike) -> Statistic:
    """The mean of one value per round."""
    array = np.asarray(values, np.float64)

    def mean(weights: npt.NDArray[np.int64]) -> Vector:
        means: Vector = weights @ array / weights.sum(axis=1)
        return means

    return mean


def median_of(values: npt.ArrayLike) -> Statistic:
    """The median of one value per round."""
    array = np.sort(np.asarray(values, np.float64))
    order = np.argsort(np.asarray(values, np.float64), kind="stable")

    def median(weights: npt.NDArray[np.int64]) -> Vector:
        below = np.cumsum(weights[:, order], axis=1)
        half = below[:, -1:] / 2
        lower = np.argmax(below >= half, axis=1)
        upper = np.argmax(below > half, axis=1)
        middle: Vector = (array[lower] + array[upper]) / 2
        return middle

    return median


def percentile_of(values: Vector, counts: npt.NDArray[Any], percentile: float) -> Statistic:
    """The percentile (a share) of all requests of the drawn rounds.

    ``values`` ascending [buckets], ``counts`` [rounds, buckets]. The value is that of the bucket
    in which the share is reached.
    """

    def compute(weights: npt.NDArray[np.int64]) -> Vector:
        below = np.cumsum(weights.astype(np.float64) @ counts.astype(np.float64), axis=1)
        reached = below >= percentile * below[:, -1:] - 1e-9
        found: Vector = values[np.argmax(reached, axis=1)]
        return found

    return compute


def value_of(statistic: Statistic, rounds: int) -> float:
    """The value of ``statistic`` with every round counted once."""
    return float(statistic(np.ones((1, rounds), np.int64))[0])


def estimate(statistic: Statistic, rounds: int, seed: int) -> Interval:
    """The value of a positive ``statistic`` over all rounds, with its interval.

    The interval is unknown (None) for a single round. Raises ValueError for a value that is
    not positive.
    """
    return ratio(statistic, lambda weights: np.ones(len(weights)), rounds, seed)


def ratio(variant: Statistic, baseline: Statistic, rounds: int, seed: int) -> Interval:
    """``variant / baseline`` of two positive statistics over the same rounds, with its interval.

    The interval is unknown (None) for a single round. Raises ValueError if one of the two is
    not positive.
    """
    value_variant, value_baseline = value_of(variant, rounds), value_of(baseline, rounds)
    if value_variant <= 0 or value_baseline <= 0:
        raise ValueError(f"a ratio needs positive values, not {value_variant}/{value_baseline}")
    value = value_variant / value_baseline
    error = log_ratio_error(variant, baseline, rounds, seed)
    if error is None:
        return Interval(value=value)
    spread = float(student_t.ppf((1 + CONFIDENCE) / 2, rounds - 1)) * error
    return Interval(value=value, low=value * exp(-spread), high=value * exp(spread))


def log_ratio_error(
    variant: Statistic, baseline: Statistic, rounds: int, seed: int
) -> float | None:
    """The standard error of ``log(variant / baseline)``; unknown (None) for a single round."""
    if rounds < 2:
        return None
    weights = resample_weights(rounds, seed)
    resampled_logs = np.log(variant(weights)) - np.log(baseline(weights))
    return sqrt(rounds / (rounds - 1)) * float(np.std(resampled_logs))
