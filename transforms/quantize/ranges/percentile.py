"""Ranges that leave a given share of the values out, as many below as above."""

from __future__ import annotations

import numpy as np

from trimton.transforms.quantize.calibration.histogram import Histogram
from trimton.transforms.quantize.sites import ActivationSite

DEFAULT_PERCENT = 99.99


def percentile(
    histogram: Histogram, site: ActivationSite, percent: float = DEFAULT_PERCENT
) -> tuple[float, float]:
    """The range that ``percent`` of all values are in; inside a bin they count as spread evenly.

    Source: Wu et al. 2020, arXiv:2004.09602, section 5.2.
    """
    bins = histogram.bins()
    if not len(bins.count):
        return histogram.minimum, histogram.maximum
    cut = (1 - percent / 100) / 2
    upto = np.concatenate([[0.0], np.cumsum(bins.count) / bins.count.sum()])
    low = _quantile(cut, upto, bins.low, bins.high)
    high = -_quantile(cut, 1 - upto[::-1], -bins.high[::-1], -bins.low[::-1])
    return low, high


def _quantile(
    share: float,
    upto: np.ndarray[tuple[int], np.dtype[np.float64]],
    low: np.ndarray[tuple[int], np.dtype[np.float64]],
    high: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> float:
    """The value below which ``share`` of all lie; ``upto`` [bins + 1] are shares at the edges."""
    number = min(int(np.searchsorted(upto, share, side="right")) - 1, len(low) - 1)
    number = max(number, 0)
    inside = (share - upto[number]) / (upto[number + 1] - upto[number])
    return float(low[number] + min(max(inside, 0.0), 1.0) * (high[number] - low[number]))
