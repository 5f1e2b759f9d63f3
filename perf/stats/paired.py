"""The ratio of two arms from pairs of rounds.

The two windows of a round follow each other directly, so that a slow drift of the machine is in
both and leaves their ratio alone. Over the rounds the ratio is a trimmed mean on the logarithmic
scale, and its standard error comes from the winsorised values (Tukey and McLaughlin 1963; Yuen
1974): from eight rounds on, one that another program disturbed moves neither. Their quotient has
heavier tails than Student's t with as many degrees of freedom as rounds are kept, less one; with
0.8 of these it has the tails that it should (simulated for up to 30 rounds).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student_t

# Cut from each end, of so many rounds or more: of fewer, what is left would say too little.
TRIMMED_SHARE = 0.2
TRIMMED_ROUNDS_MIN = 8
_FREEDOM_OF_TRIMMED = 0.8
POWER = 0.8


@dataclass(frozen=True)
class RatioEstimate:
    """``variant / baseline`` on the logarithmic scale, and how sure it is.

    ``standard_error`` is None for a single round; ``effective_rounds`` less one are its degrees of
    freedom. ``baseline`` and ``variant`` are the values whose ratio it is.
    """

    baseline: float
    variant: float
    standard_error: float | None
    effective_rounds: float

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
        reach = float(student_t.ppf(POWER, self.effective_rounds - 1))
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
    cut = int(TRIMMED_SHARE * rounds) if rounds >= TRIMMED_ROUNDS_MIN else 0
    kept = order[cut : rounds - cut]
    winsorised = logs.clip(logs[kept[0]], logs[kept[-1]])
    return RatioEstimate(
        baseline=exp(float(np.log(before[kept]).mean())),
        variant=exp(float(np.log(after[kept]).mean())),
        standard_error=(
            sqrt(float(winsorised.var()) * rounds / (len(kept) * (len(kept) - 1)))
            if rounds > 1
            else None
        ),
        effective_rounds=1 + (len(kept) - 1) * (_FREEDOM_OF_TRIMMED if cut else 1),
    )


def _exp(exponent: float) -> float:
    """``exp``, infinite where a float ends."""
    return exp(exponent) if exponent < log(np.finfo(np.float64).max) else float("inf")
