"""Ranges of least Kullback-Leibler divergence between the values and their quantised form.

For a threshold t the values beyond it are moved to it, and the range is cut into as many levels
as there are integers; a level spreads its values evenly over those of its fine bins that hold
any. With cumulative sums over the fine bins, the divergence of all thresholds is three
differences at the edges of their levels.

Source: Migacz 2017, "8-bit inference with TensorRT". As there, exact zeros do not count: their
integer is exact with any range.
"""

from __future__ import annotations

import numpy as np

from trimton.transforms.quantize.calibration.histogram import Bins, Histogram
from trimton.transforms.quantize.encoding import LIMITS, Array
from trimton.transforms.quantize.sites import ActivationSite

_FINE_BINS = 8192
# Shares of the largest magnitude that are tried as thresholds; the smallest still leaves several
# fine bins to each level.
_THRESHOLDS = np.linspace(0.125, 1.0, 176)
_TINY = 1e-12


def entropy(histogram: Histogram, site: ActivationSite) -> tuple[float, float]:
    """The range [-t, t], cut at the extremes, whose quantised values diverge least."""
    low, high = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
    largest = max(-low, high)
    if largest == 0.0:
        return low, high
    bins = _without_zeros(histogram.bins())
    bottom, top = LIMITS[site.dtype]
    if site.symmetric:
        edges = np.linspace(0.0, largest, _FINE_BINS + 1)
        masses = np.diff(bins.below(edges)) + np.diff(_mirrored(bins).below(edges))
        levels = (top - bottom) // 2
    else:
        edges = np.linspace(low, high, _FINE_BINS + 1)
        masses = np.diff(bins.below(edges))
        levels = top - bottom
    thresholds = _THRESHOLDS * largest
    first = np.searchsorted(edges, -thresholds, side="right") - 1
    last = np.searchsorted(edges, thresholds, side="left")
    starts, stops = np.maximum(first, 0), np.minimum(last, _FINE_BINS)
    best = float(thresholds[int(np.argmin(_divergences(masses, starts, stops, levels)))])
    return max(low, -best), min(high, best)


def _divergences(masses: Array, starts: Array, stops: Array, levels: int) -> Array:
    """KL(P, Q) with P the values clipped to bins start ... stop, Q their quantised form."""
    total = masses.sum()
    if not total:
        return np.zeros(len(starts))
    shares = np.arange(levels + 1) / levels
    edges = np.rint(starts[:, None] + (stops - starts)[:, None] * shares).astype(np.int64)
    upto = _upto(masses)
    inside = upto[stops] - upto[starts]
    level = np.diff(upto[edges], axis=1)
    used = np.diff(_upto(masses > 0)[edges], axis=1)
    # Of Q: the height of a level, never quite 0 where clipped values land on one without others.
    height = np.maximum(level / np.maximum(used, 1), _TINY * total)
    clipped = level.copy()
    clipped[:, 0] += upto[starts]
    clipped[:, -1] += total - upto[stops]
    ends = ((starts, upto[starts]), (stops - 1, total - upto[stops]))
    entropies = np.diff(_upto(_x_log_x(masses))[np.stack([starts, stops], axis=1)], axis=1)[:, 0]
    for place, added in ends:
        entropies += _x_log_x(masses[place] + added) - _x_log_x(masses[place])
    cross = (clipped * np.log(height)).sum(axis=1)
    divergences = (entropies - cross) / total + np.log(np.maximum(inside, _TINY) / total)
    result: Array = np.where(inside > 0, divergences, np.inf)
    return result


def _without_zeros(bins: Bins) -> Bins:
    keep = np.maximum(np.abs(bins.low), np.abs(bins.high)) > np.finfo(np.float32).tiny
    return Bins(bins.low[keep], bins.high[keep], bins.count[keep])


def _mirrored(bins: Bins) -> Bins:
    return Bins(-bins.high[::-1], -bins.low[::-1], bins.count[::-1])


def _upto(values: Array) -> Array:
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _x_log_x(values: Array) -> Array:
    result: Array = values * np.log(np.where(values > 0, values, 1.0))
    return result
