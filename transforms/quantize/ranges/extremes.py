"""Ranges from the least and the greatest values of samples."""

from __future__ import annotations

import numpy as np

from trimton.transforms.quantize.calibration.histogram import Histogram
from trimton.transforms.quantize.sites import ActivationSite

# The weight of the last sample; each one before it has 1 % less.
_LATEST = 0.01


def minmax(histogram: Histogram, site: ActivationSite) -> tuple[float, float]:
    """The range that holds every value of every sample."""
    return histogram.minimum, histogram.maximum


def moving_average(histogram: Histogram, site: ActivationSite) -> tuple[float, float]:
    """The extremes of a sample, on an exponential average over all in their order.

    The weights add up to 1, so that the first sample counts no more than others (the correction
    for bias of Kingma and Ba 2015, arXiv:1412.6980). Source: Jacob et al. 2018, section 3.1.
    """
    samples = len(histogram.extremes)
    if not samples:
        return 0.0, 0.0
    weights = (1 - _LATEST) ** np.arange(samples - 1, -1, -1.0)
    low, high = weights @ histogram.extremes.astype(np.float64) / weights.sum()
    return float(low), float(high)
