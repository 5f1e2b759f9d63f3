"""The counts of one measurement: successes with their latencies, failures by kind.

When counting starts and ends is the business of its two kinds: Window (closed loop, between
two ends) and Span (a fixed set of requests, all of which count).
"""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING

from trimton.perf.measure.histogram import LatencyHistogram

if TYPE_CHECKING:
    from trimton.perf.load.response_times import ResponseTimes

# Kinds of errors beyond this many are counted as one, so that a server which puts an
# identifier into each message does not fill the memory.
_MAX_ERROR_KINDS = 20
_OTHER = "other"
# Latencies wait in a flat array of this many and then move into the histogram, so that the
# memory of a long run does not grow.
_BLOCK = 65_536

# Told of every counted success: (started_ns, finished_ns), monotonic.
OnRequest = Callable[[int, int], None]


class Latencies:
    """Times in nanoseconds, kept as a histogram, their sum and their maximum."""

    __slots__ = ("_block", "_flushed", "_histogram", "_max_ns", "_total_ns")

    def __init__(self) -> None:
        self._block = array("q")
        self._histogram = LatencyHistogram()
        self._flushed = 0
        self._total_ns = 0
        self._max_ns = 0

    def record(self, latency_ns: int) -> None:
        """Count one time."""
        self._block.append(latency_ns)
        if len(self._block) == _BLOCK:
            self._flush()

    def add(self, other: Latencies) -> None:
        """Count everything that ``other`` counted."""
        histogram = other.histogram
        self._histogram.add(histogram)
        self._flushed += other._flushed
        self._total_ns += other._total_ns
        self._max_ns = max(self._max_ns, other._max_ns)

    @property
    def count(self) -> int:
        """How many."""
        return self._flushed + len(self._block)

    @property
    def total_ns(self) -> int:
        """Their sum."""
        return self._total_ns + sum(self._block)

    @property
    def max_ns(self) -> int:
        """The longest; 0 without any."""
        return max(self._max_ns, max(self._block, default=0))

    @property
    def histogram(self) -> LatencyHistogram:
        """The histogram of all times so far."""
        self._flush()
        return self._histogram

    @property
    def mean_ms(self) -> float:
        """Their mean in milliseconds; 0 without any."""
        return self.total_ns / self.count / 1e6 if self.count else 0.0

    def _flush(self) -> None:
        if self._block:
            self._histogram.record_ns(self._block)
            self._flushed, self._total_ns, self._max_ns = self.count, self.total_ns, self.max_ns
            self._block = array("q")


class Tally:
    """What was counted, and over exactly which time.

    ``all_answers`` counts the successes outside the measured time too; ``response_times`` belong to
    requests with several responses. Not safe for concurrent
    use: callers with threads hold a lock.
    """

    def __init__(self, on_request: OnRequest | None = None) -> None:
        self._on_request = on_request
        self._cpu_opened_ns = 0
        self.latencies = Latencies()
        self.all_answers = 0
        self.errors: Counter[str] = Counter()
        self.error_example: str | None = None
        self.opened_ns = 0
        self.closed_ns = 0
        self.cpu_ns = 0
        self.response_times: ResponseTimes | None = None

    @property
    def requests(self) -> int:
        """The counted successes."""
        return self.latencies.count

    @property
    def failures(self) -> int:
        """The counted failures of all kinds."""
        return self.errors.total()

    @property
    def histogram(self) -> LatencyHistogram:
        """Latencies of the counted successes."""
        return self.latencies.histogram

    @property
    def is_closed(self) -> bool:
        """True once nothing more is counted."""
        return self.closed_ns > 0

    @property
    def duration_s(self) -> float:
        """The exact length of the measured time, once it is closed."""
        return (self.closed_ns - self.opened_ns) / 1e9

    @property
    def mean_latency_ms(self) -> float:
        """The mean latency of the successful requests; 0 without any."""
        return self.latencies.mean_ms

    def close(self, now_ns: int | None = None) -> None:
        """Stop counting; what no outcome ever opened closes with length zero."""
        if self.is_closed:
            return
        self.closed_ns = monotonic_ns() if now_ns is None else now_ns
        if self.opened_ns:
            self.cpu_ns = time.process_time_ns() - self._cpu_opened_ns
        else:
            self.opened_ns = self.closed_ns

    def _open(self, now_ns: int) -> None:
        self.opened_ns = now_ns
        self._cpu_opened_ns = time.process_time_ns()

    def _count_success(self, started_ns: int, finished_ns: int) -> None:
        self.latencies.record(finished_ns - started_ns)
        if self._on_request is not None:
            self._on_request(started_ns, finished_ns)

    def _count_failure(self, kind: str, text: str) -> None:
        known = kind in self.errors or len(self.errors) < _MAX_ERROR_KINDS
        self.errors[kind if known else _OTHER] += 1
        if self.error_example is None:
            self.error_example = f"{kind}: {text}" if text else kind
