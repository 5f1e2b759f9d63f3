"""The measuring window: which requests count, and over exactly which time.

A window opens at the end of a request and closes at the end of another, and every request
that ends in between counts. Cutting at a fixed instant instead would lose the part of a
request that hangs over the edge (with few, slow requests several percent of the throughput),
and counting only requests that both start and end inside drops long latencies more often than
short ones. Between two ends nothing is lost: throughput is requests / time without bias.
"""

from __future__ import annotations

from trimton.perf.load.tally import OnRequest, Tally


class Window(Tally):
    """Collects the outcomes of requests until ``duration_ns`` has passed.

    The first ``settle`` outcomes pass uncounted: they belong to the start, when all
    connections send at once; the next one opens the window. With ``settle`` = connections that
    is the first of a batch where the server answers in batches, and so is the one that closes
    it: batches are counted whole. ``requests`` counts the successes inside the window,
    ``all_answers`` those outside it too.
    """

    def __init__(
        self, duration_ns: int, settle: int, *, on_request: OnRequest | None = None
    ) -> None:
        super().__init__(on_request)
        self._duration_ns = duration_ns
        self._settle = settle
        self._closes_ns = 0  # while it is open, when its time is over

    def answered(self, started_ns: int, finished_ns: int) -> None:
        """A request succeeded."""
        self.all_answers += 1
        if self._closes_ns > finished_ns and self._on_request is None:  # the hot path
            self.latencies.record(finished_ns - started_ns)
        elif self._counts(finished_ns):
            self._count_success(started_ns, finished_ns)
            if finished_ns >= self._closes_ns:
                self.close(finished_ns)

    def failed(self, finished_ns: int, kind: str, text: str) -> None:
        """A request failed; ``kind`` is counted, the first ``text`` is kept as an example."""
        if self._counts(finished_ns):
            self._count_failure(kind, text)
            if finished_ns >= self._closes_ns:
                self.close(finished_ns)

    def _open(self, now_ns: int) -> None:
        super()._open(now_ns)
        self._closes_ns = now_ns + self._duration_ns

    def close(self, now_ns: int | None = None) -> None:
        """Stop counting; what no outcome ever opened closes with length zero."""
        super().close(now_ns)
        self._closes_ns = 0

    def _counts(self, finished_ns: int) -> bool:
        if self.closed_ns:
            return False
        if self.opened_ns:
            return True
        if self._settle > 0:
            self._settle -= 1
        else:
            self._open(finished_ns)
        return False
