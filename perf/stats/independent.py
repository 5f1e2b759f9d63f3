"""The ratio of two groups of independent readings, such as one of each fresh server."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, sqrt

import numpy as np
from scipy.stats import t as student_t

from trimton.perf.results import Interval
from trimton.perf.stats.bootstrap import CONFIDENCE


def independent_ratio(
    variant: Sequence[float], baseline: Sequence[float], confidence: float = CONFIDENCE
) -> Interval:
    """``variant / baseline`` of two groups of positive, independent readings.

    The value is the ratio of geometric means; the interval is Welch's (1947) on the logarithmic
    scale, with Satterthwaite's degrees of freedom. Unknown (None) where a group has one reading.
    Raises ValueError for an empty group or a reading that is not positive.
    """
    groups = [np.asarray(group, np.float64) for group in (variant, baseline)]
    if any(len(group) == 0 or group.min() <= 0 for group in groups):
        raise ValueError("a ratio needs positive readings in both groups")
    logs = [np.log(group) for group in groups]
    difference = float(logs[0].mean() - logs[1].mean())
    if min(len(group) for group in groups) < 2:
        return Interval(value=exp(difference))
    squared_errors = [float(log.var(ddof=1)) / len(log) for log in logs]
    total = sum(squared_errors)
    if total == 0:
        return Interval(value=exp(difference), low=exp(difference), high=exp(difference))
    freedom = total**2 / sum(
        error**2 / (len(log) - 1) for error, log in zip(squared_errors, logs, strict=True)
    )
    half = float(student_t.ppf((1 + confidence) / 2, freedom)) * sqrt(total)
    return Interval(value=exp(difference), low=exp(difference - half), high=exp(difference + half))
