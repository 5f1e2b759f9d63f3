"""Latency histograms: HdrHistogram of microseconds, mergeable across rounds and machines.

A percentile is given only with enough requests behind it. The rule is LoadGen's early
stopping with confidence c = 0.99 (MLPerf inference, ``early_stopping.cc``): with no request
over the limit, n requests support the percentile p if ``P[Binomial(n, 1-p) = 0] <= 1-c``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import ceil, log

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

LOWEST_US = 1
HIGHEST_US = 3_600_000_000
SIGNIFICANT_DIGITS = 3
EARLY_STOPPING_CONFIDENCE = 0.99

# The percentiles that reports carry, by the name they have there.
PERCENTILES: Mapping[str, float] = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}


def requests_needed(percentile: float, confidence: float = EARLY_STOPPING_CONFIDENCE) -> int:
    """The fewest requests that support ``percentile`` (a share in (0, 1))."""
    return ceil(log(1 - confidence) / log(percentile))


class LatencyHistogram:
    """Counts of latencies in microseconds, three significant digits, 1 µs to one hour."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS)

    def __len__(self) -> int:
        return int(self._histogram.get_total_count())

    def __reduce__(self) -> tuple[Callable[[str], LatencyHistogram], tuple[str]]:
        """Between processes and machines it travels in its interchange form."""
        return LatencyHistogram.decode, (self.encode(),)

    def record_ns(self, latencies_ns: npt.ArrayLike) -> None:
        """Count latencies given in nanoseconds; each is clamped to the range of the histogram."""
        latencies_us = np.rint(np.asarray(latencies_ns, np.float64) / 1000).astype(np.int64)
        values, counts = np.unique(latencies_us.clip(LOWEST_US, HIGHEST_US), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self._histogram.record_value(value, count)

    def add(self, other: LatencyHistogram) -> None:
        """Count everything that ``other`` counted."""
        if len(other):
            self._histogram.add(other._histogram)

    def encode(self) -> str:
        """The compressed interchange form of HdrHistogram, base64."""
        encoded = self._histogram.encode()
        return encoded.decode("ascii") if isinstance(encoded, bytes) else str(encoded)

    @classmethod
    def decode(cls, text: str) -> LatencyHistogram:
        """The histogram that ``encode`` wrote."""
        histogram = cls()
        histogram._histogram = HdrHistogram.decode(text)
        return histogram

    @classmethod
    def merged(cls, parts: Iterable[LatencyHistogram]) -> LatencyHistogram:
        """One histogram of all ``parts``."""
        total = cls()
        for part in parts:
            total.add(part)
        return total

    def buckets(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """The used buckets, ascending: their middle in milliseconds, and their counts."""
        # A view of its counters: its own iterators take a step of Python for each empty bucket.
        counters = np.ctypeslib.as_array(self._histogram.counts)
        used = np.flatnonzero(counters)
        lowest_us = [self._histogram.get_value_from_index(index) for index in used.tolist()]
        return np.array([self._middle_ms(us) for us in lowest_us]), counters[used].astype(np.int64)

    def percentile_ms(self, percentile: float) -> float | None:
        """The latency that the share ``percentile`` of requests stays within, in milliseconds.

        None where fewer than ``requests_needed(percentile)`` were counted.
        """
        if len(self) < requests_needed(percentile):
            return None
        values, counts = self.buckets()
        below = np.cumsum(counts)
        return float(values[np.searchsorted(below, percentile * below[-1] - 1e-9)])

    def _middle_ms(self, value_us: int) -> float:
        lowest = self._histogram.get_lowest_equivalent_value(value_us)
        highest = self._histogram.get_highest_equivalent_value(value_us)
        return float(lowest + highest) / 2000
