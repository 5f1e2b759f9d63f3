"""Ranges of least squared error: what clipping costs against what a finer step gains.

The error of an encoding has three parts. Values that round to zero lose themselves, those beyond
the ends their distance to it, all others a twelfth of a squared step on average. With
cumulative sums of counts, values and squares each part is a difference at the places where it
begins and ends, so that thousands of ranges cost no more than a few.

Source: Sung et al. 2015, arXiv:1511.06488; Nagel et al. 2021, arXiv:2106.08295, section 3.1.
"""

from __future__ import annotations

import numpy as np

from trimton.transforms.quantize.calibration.histogram import Bins, Histogram
from trimton.transforms.quantize.encoding import LIMITS, Array
from trimton.transforms.quantize.ranges.grid import grid
from trimton.transforms.quantize.sites import ActivationSite

# Shares of the extremes that are tried, both ends by themselves; then finer around the best.
_COARSE = np.geomspace(0.02, 1.0, 48)
_FINER = np.geomspace(0.92, 1.08, 17)


def mse(histogram: Histogram, site: ActivationSite) -> tuple[float, float]:
    """The range whose encoding has the least mean squared error."""
    full = np.asarray([min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)])
    moments = _Moments(histogram.bins())
    shares = np.ones(2)
    for factors in (_COARSE, _FINER):
        tried = np.minimum(_pairs(factors, full, site) * shares, 1.0)
        low, high = (tried * full).T
        errors = moments.errors(low, high, site)
        shares = tried[int(np.argmin(errors))]
    return float(shares[0] * full[0]), float(shares[1] * full[1])


def _pairs(factors: Array, full: Array, site: ActivationSite) -> Array:
    """Factors for both ends, [tried, 2]: each by itself unless there is one only, or one scale."""
    if site.symmetric or not full.all():
        return np.stack([factors, factors], axis=1)
    return np.stack(np.meshgrid(factors, factors), axis=-1).reshape(-1, 2)


class _Moments:
    """Sums of 1, x and x^2 over the values x of ``bins`` between two places."""

    def __init__(self, bins: Bins) -> None:
        self._bins = bins
        self._weights = [bins.middle**power for power in range(3)]

    def errors(self, low: Array, high: Array, site: ActivationSite) -> Array:
        """Sums of squared errors, [ranges], of encodings for the ranges [low, high]."""
        bottom, top = LIMITS[site.dtype]
        scale, zero_point = grid(low, high, site.dtype, site.symmetric)
        step = scale.astype(np.float64)
        first, last = (bottom - zero_point) * step, (top - zero_point) * step
        count, _, square = self._between(np.maximum(first, -step / 2), np.minimum(last, step / 2))
        rounded = self._between(first, last)[0] - count
        everything = np.full(step.shape, np.inf)
        errors: Array = (
            square
            + rounded * step**2 / 12
            + _distance(first, self._between(-everything, first))
            + _distance(last, self._between(last, everything))
        )
        return errors

    def _between(self, low: Array, high: Array) -> tuple[Array, Array, Array]:
        below = self._bins.below
        count, value, square = (below(high, w) - below(low, w) for w in self._weights)
        return count, value, square


def _distance(end: Array, moments: tuple[Array, Array, Array]) -> Array:
    """The sum of (x - end)^2."""
    count, value, square = moments
    total: Array = np.maximum(square - 2 * end * value + end**2 * count, 0.0)
    return total
