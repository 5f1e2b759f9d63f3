"""Histograms without a range: one counter for each value of the upper 16 bits of a float32.

Those are the sign, the exponent and 7 bits of the significand, so every bin is at most 1/128 of
its values wide, wherever they lie. Nothing has to be known before the first sample, and two
histograms merge by adding their counters: one pass is enough for every method that chooses a
range, and the order of the samples, and who counted them, does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, reduce

import numpy as np

from trimton.transforms.quantize.encoding import Array

COUNTERS = 1 << 16
_HALF = COUNTERS // 2
# The first pattern of a number that is not finite.
_INFINITE = 0x7F80


@dataclass(frozen=True)
class Bins:
    """The counted values: ``count`` of them in each [``low``, ``high``], ascending, float64."""

    low: Array
    high: Array
    count: Array

    @property
    def middle(self) -> Array:
        """Where the values of each bin are, on average."""
        middle: Array = (self.low + self.high) / 2
        return middle

    def below(self, places: Array, weight: Array | float = 1.0) -> Array:
        """The sum of ``weight`` (of a value, by bin) over the values below ``places``.

        The values of a bin count as spread evenly.
        """
        if not len(self.count):
            return np.zeros(np.shape(places))
        upto = np.concatenate([[0.0], np.cumsum(self.count * weight)])
        edges = np.stack([self.low, self.high], axis=1).reshape(-1)
        sums = np.stack([upto[:-1], upto[1:]], axis=1).reshape(-1)
        result: Array = np.interp(places, edges, sums, left=0.0, right=upto[-1])
        return result


@dataclass(frozen=True)
class Histogram:
    """The values of one tensor over all samples.

    ``counters`` int64 [65536], by the upper 16 bits of a value: how many values. Where only a
    share of them was counted (see Counter), each stands for several. ``extremes`` float32
    [samples, 2]: the least and the greatest of all values of each sample, in their order.
    """

    counters: Array
    extremes: Array

    @property
    def count(self) -> int:
        """The number of values."""
        return int(self.counters.sum())

    @property
    def minimum(self) -> float:
        """The least value of all samples; 0 where there is none."""
        return float(self.extremes[:, 0].min(initial=np.inf)) if len(self.extremes) else 0.0

    @property
    def maximum(self) -> float:
        """The greatest value of all samples; 0 where there is none."""
        return float(self.extremes[:, 1].max(initial=-np.inf)) if len(self.extremes) else 0.0

    def merge(self, other: Histogram) -> Histogram:
        """The histogram of both; samples of ``other`` come after those of this one."""
        extremes = np.concatenate([self.extremes, other.extremes])
        return Histogram(self.counters + other.counters, extremes)

    def bins(self) -> Bins:
        """The bins that hold values, ascending, cut at the least and the greatest value."""
        low, high, order = _edges()
        count = self.counters[order]
        is_used = count > 0
        limits = (self.minimum, self.maximum)
        return Bins(np.clip(low[is_used], *limits), np.clip(high[is_used], *limits), count[is_used])


EMPTY = Histogram(np.zeros(COUNTERS, np.int64), np.zeros((0, 2), np.float32))


def merged(histograms: list[Histogram]) -> Histogram:
    """The histogram of all, in this order."""
    return reduce(Histogram.merge, histograms, EMPTY)


@cache
def _edges() -> tuple[Array, Array, Array]:
    """Lower and upper edges of all bins of finite values, ascending, and their counters."""
    patterns = np.arange(_INFINITE + 1, dtype=np.uint32) << 16
    edges = patterns.view(np.float32).astype(np.float64)
    edges[-1] = np.finfo(np.float32).max
    positive = np.arange(_INFINITE)
    low = np.concatenate([-edges[:0:-1], edges[:-1]])
    high = np.concatenate([-edges[-2::-1], edges[1:]])
    return low, high, np.concatenate([_HALF + positive[::-1], positive])
