"""The mean squared error of an encoding on the values of a histogram, in closed form.

Within a bin the values count as spread evenly. Measured in steps of the scale, the error of
``u`` is a sawtooth inside the limits and grows without bound outside them, so its square has an
antiderivative: no value has to be quantised.
"""

from __future__ import annotations

import numpy as np

from trimton.transforms.quantize.calibration.histogram import Bins
from trimton.transforms.quantize.encoding import Array, Encoding

# Narrower bins (in steps) are taken for points.
_NARROW = 1e-3


def mean_squared_error(bins: Bins, encoding: Encoding) -> float:
    """The mean of (value - dequantised value)^2 over ``bins``, for an encoding of one scale."""
    total = bins.count.sum()
    if not total:
        return 0.0
    limits = encoding.limits
    scale, zero_point = float(encoding.scale), float(encoding.zero_point)
    low, high = bins.low / scale + zero_point, bins.high / scale + zero_point
    width = high - low
    is_narrow = width < _NARROW
    middle = (low + high) / 2
    point = (middle - np.clip(np.rint(middle), *limits)) ** 2
    spread = _antiderivative(high, limits) - _antiderivative(low, limits)
    mean = np.where(is_narrow, point, spread / np.where(is_narrow, 1.0, width))
    return float(scale**2 * (mean @ bins.count) / total)


def clipped_share(bins: Bins, encoding: Encoding) -> float:
    """The share of values beyond the limits of ``encoding``, by half a step and more."""
    low, high = encoding.limits
    scale, zero_point = float(encoding.scale), float(encoding.zero_point)
    bottom, top = (low - 0.5 - zero_point) * scale, (high + 0.5 - zero_point) * scale
    width = bins.high - bins.low
    safe = np.where(width > 0, width, 1.0)
    above = np.where(width > 0, np.clip((bins.high - top) / safe, 0, 1), bins.high > top)
    below = np.where(width > 0, np.clip((bottom - bins.low) / safe, 0, 1), bins.low < bottom)
    return float((above + below) @ bins.count / max(int(bins.count.sum()), 1))


def _antiderivative(u: Array, limits: tuple[int, int]) -> Array:
    """Of (u - clip(round(u), *limits))^2."""
    low, high = limits
    inside = np.clip(u, low - 0.5, high + 0.5)
    nearest = np.floor(inside + 0.5)
    over, under = np.maximum(u - high, 0.5), np.minimum(u - low, -0.5)
    result: Array = (
        nearest / 12 + (inside - nearest) ** 3 / 3 + (over**3 - 0.125) / 3 + (under**3 + 0.125) / 3
    )
    return result
