"""95 % intervals of shares of samples, sound for small counts and for shares of 0 and 1.

A bootstrap over samples would claim certainty where all samples agree: resampling identical
values gives no spread. The closed forms below do not.
"""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

from trimton.perf.results import Interval

CONFIDENCE = 0.95


def normal_quantile(confidence: float) -> float:
    """How many standard errors a two-sided interval of the normal distribution reaches."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


_Z = normal_quantile(CONFIDENCE)


def share(successes: int, samples: int, confidence: float = CONFIDENCE) -> Interval:
    """``successes / samples`` with Wilson's score interval (Wilson 1927)."""
    if samples < 1 or not 0 <= successes <= samples:
        raise ValueError(f"needs 0 <= successes <= samples >= 1, got {successes}/{samples}")
    observed, z = successes / samples, normal_quantile(confidence)
    weight = z**2 / samples
    centre = (observed + weight / 2) / (1 + weight)
    half = z * sqrt(observed * (1 - observed) / samples + weight / (4 * samples)) / (1 + weight)
    return Interval(
        value=observed,
        low=min(max(centre - half, 0.0), observed),
        high=max(min(centre + half, 1.0), observed),
    )


def paired_difference(only_first: int, only_second: int, samples: int) -> Interval:
    """The share of the first minus the share of the second, both over the same samples.

    ``only_first`` counts samples where only the first succeeds, ``only_second`` the reverse.
    Interval: Bonett and Price (2012), "Adjusted Wald confidence interval for a difference of
    binomial proportions based on paired data".
    """
    if samples < 1 or min(only_first, only_second) < 0 or only_first + only_second > samples:
        raise ValueError(f"counts {only_first}, {only_second} do not fit {samples} samples")
    first, second = (only_first + 1) / (samples + 2), (only_second + 1) / (samples + 2)
    centre = first - second
    half = _Z * sqrt((first + second - centre**2) / (samples + 2))
    observed = (only_first - only_second) / samples
    return Interval(
        value=observed,
        low=max(min(centre - half, observed), -1.0),
        high=min(max(centre + half, observed), 1.0),
    )
