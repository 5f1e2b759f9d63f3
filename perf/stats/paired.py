"""The ratio of two arms from pairs of rounds.

The two windows of a round follow each other directly, so that a slow drift of the machine is in
both and leaves their ratio alone. Over the rounds the ratio is a trimmed mean on the logarithmic
scale, and its standard error comes from the winsorised values (Tukey and McLaughlin 1963; Yuen
1974): one round that another program disturbed moves neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student_t

# Cut from each end. With fewer than five rounds nothing is.
TRIMMED_SHARE = 0.2
POWER = 0.8


@dataclass(frozen=True)
class RatioEstimate:
    """``variant / baseline`` on the logarithmic scale, and how sure it is.

    ``standard_error`` is None for a single round; ``effective_rounds`` less one are its degrees
    of freedom. ``baseline`` and ``variant`` are the values whose ratio it is.
    """

    baseline: float
    variant: float
    standard_error: float | None
    effective_rounds: int

    @property
    def ratio(self) -> float:
        """``variant / baseline``."""
        return self.variant / self.baseline

    def interval(self, quantile: float) -> tuple[float, float] | None:
        """The ratio plus and minus ``quantile`` standard errors; None where that is unknown."""
        if self.standard_error is None:
            return None
        half = quantile * self.standard_error
        return self.ratio * exp(-half), self.ratio * _exp(half)

    def detectable(self, quantile: float) -> float | None:
        """The smallest true ratio above 1 that such rounds find in 80 of 100 comparisons.

        Found means: the interval with this ``quantile`` lies wholly on one side of 1.
        """
        if self.standard_error is None:
            return None
        reach = float(student_t.ppf(POWER, max(self.effective_rounds - 1, 1)))
        needed = (quantile + reach) * self.standard_error if self.standard_error else 0.0
        return _exp(needed)


def paired_ratio(variant: npt.ArrayLike, baseline: npt.ArrayLike) -> RatioEstimate:
    """The ratio of two arms, each with one positive value for each round, in the same order.

    Raises ValueError for values that are not positive, or for no rounds.
    """
    after, before = np.asarray(variant, np.float64), np.asarray(baseline, np.float64)
    if len(after) != len(before) or not len(after) or min(after.min(), before.min()) <= 0:
        raise ValueError("a ratio needs as many positive values of one arm as of the other")
    logs = np.log(after) - np.log(before)
    order = np.argsort(logs, kind="stable")
    rounds = len(logs)
    cut = int(TRIMMED_SHARE * rounds)
    kept = order[cut : rounds - cut]
    winsorised = logs.clip(logs[kept[0]], logs[kept[-1]])
    return RatioEstimate(
        baseline=exp(float(np.log(before[kept]).mean())),
        variant=exp(float(np.log(after[kept]).mean())),
        standard_error=(
            float(winsorised.std(ddof=1)) * sqrt(rounds) / len(kept) if rounds > 1 else None
        ),
        effective_rounds=len(kept),
    )


def _exp(exponent: float) -> float:
    """``exp``, infinite where a float ends."""
    return exp(exponent) if exponent < log(np.finfo(np.float64).max) else float("inf")
