"""The measuring window: which requests count, and over exactly which time.

A window opens at the end of a request and closes at the end of another, and every request
that ends in between counts. Cutting at a fixed instant instead would lose the part of a
request that hangs over the edge (with few, slow requests several percent of the throughput),
and counting only requests that both start and end inside drops long latencies more often than
short ones. Between two ends nothing is lost: throughput is requests / time without bias.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter
from time import monotonic_ns

from trimton.perf.measure.histogram import LatencyHistogram

# Kinds of errors beyond this many are counted as one, so that a server which puts an
# identifier into each message does not fill the memory.
_MAX_ERROR_KINDS = 20
_OTHER = "other"
# Latencies wait in a flat array of this many and then move into the histogram, so that the
# memory of a long run does not grow.
_BLOCK = 65_536


class Window:
    """Collects the outcomes of requests until ``duration_ns`` has passed.

    The first ``settle`` outcomes pass uncounted: they belong to the start, when all
    connections send at once; the next one opens the window. With ``settle`` = connections that
    is the first of a batch where the server answers in batches, and so is the one that closes
    it: batches are counted whole. ``requests`` counts the successes inside the window,
    ``all_answers`` those outside it too. Not safe for concurrent use: callers with threads
    hold a lock.
    """

    def __init__(self, duration_ns: int, settle: int) -> None:
        self._duration_ns = duration_ns
        self._settle = settle
        self._latencies_ns = array("q")
        self._total_latency_ns = 0
        self._cpu_opened_ns = 0
        self.opened_ns = 0
        self.closed_ns = 0
        self.cpu_ns = 0
        self.requests = 0
        self.all_answers = 0
        self.errors: Counter[str] = Counter()
        self.error_example: str | None = None
        self.histogram = LatencyHistogram()

    @property
    def is_closed(self) -> bool:
        """True once nothing more is counted."""
        return self.closed_ns > 0

    @property
    def duration_s(self) -> float:
        """The exact length of the closed window."""
        return (self.closed_ns - self.opened_ns) / 1e9

    @property
    def mean_latency_ms(self) -> float:
        """The mean latency of the successful requests; 0 without any."""
        return self._total_latency_ns / self.requests / 1e6 if self.requests else 0.0

    def answered(self, started_ns: int, finished_ns: int) -> None:
        """A request succeeded."""
        self.all_answers += 1
        if self._counts(finished_ns):
            self.requests += 1
            latency_ns = finished_ns - started_ns
            self._total_latency_ns += latency_ns
            self._latencies_ns.append(latency_ns)
            if len(self._latencies_ns) == _BLOCK:
                self._flush()
            if finished_ns - self.opened_ns >= self._duration_ns:
                self.close(finished_ns)

    def failed(self, finished_ns: int, kind: str, text: str) -> None:
        """A request failed; ``kind`` is counted, the first ``text`` is kept as an example."""
        if self._counts(finished_ns):
            known = kind in self.errors or len(self.errors) < _MAX_ERROR_KINDS
            self.errors[kind if known else _OTHER] += 1
            if self.error_example is None:
                self.error_example = f"{kind}: {text}" if text else kind
            if finished_ns - self.opened_ns >= self._duration_ns:
                self.close(finished_ns)

    def close(self, now_ns: int | None = None) -> None:
        """Stop counting; a window that no outcome ever opened closes with length zero."""
        if self.is_closed:
            return
        self.closed_ns = monotonic_ns() if now_ns is None else now_ns
        if self.opened_ns:
            self.cpu_ns = time.process_time_ns() - self._cpu_opened_ns
        else:
            self.opened_ns = self.closed_ns
        self._flush()

    def _counts(self, finished_ns: int) -> bool:
        if self.closed_ns:
            return False
        if self.opened_ns:
            return True
        if self._settle > 0:
            self._settle -= 1
        else:
            self.opened_ns = finished_ns
            self._cpu_opened_ns = time.process_time_ns()
        return False

    def _flush(self) -> None:
        if self._latencies_ns:
            self.histogram.record_ns(self._latencies_ns)
            self._latencies_ns = array("q")
