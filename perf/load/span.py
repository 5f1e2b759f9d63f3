"""A fixed set of requests, every one of which counts, from the first start to the last end.

For schedules (a rate, a trace) and for a given number of requests: no request is left out, so
the counts add up to what was asked for, and no idle time before or after is included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

from trimton.perf.load.tally import Latencies, OnRequest, Tally

# A request that leaves more than this after its scheduled instant is late.
LATE_NS = 1_000_000
_ENDLESS_NS = 2**63


@dataclass(frozen=True)
class Progress:
    """How far a span has come: its outcomes, and the time from its start to the last answer.

    ``over_limit`` of the ``requests`` (the successes) took longer than the limit that was given.
    """

    requests: int
    failures: int
    over_limit: int
    elapsed_ns: int

    @property
    def outcomes(self) -> int:
        """Successes and failures."""
        return self.requests + self.failures

    @classmethod
    def together(cls, parts: Iterable[Progress]) -> Self:
        """Of several spans of one schedule."""
        known = list(parts)
        return cls(
            requests=sum(part.requests for part in known),
            failures=sum(part.failures for part in known),
            over_limit=sum(part.over_limit for part in known),
            elapsed_ns=max((part.elapsed_ns for part in known), default=0),
        )


# Asked for how far a load has come whether that is enough.
Enough = Callable[[Progress], bool]


def never(progress: Progress) -> bool:
    """The schedule is carried out to its end."""
    return False


class Span(Tally):
    """Collects exactly ``count`` outcomes; closes with the last of them.

    Where requests have a schedule, latency runs from the scheduled instant, and beside it stand
    the ``service`` times (from the actual send) and the ``lateness`` of the sends.
    ``client_late`` counts instants that the client itself noticed late; the other late sends
    waited for a connection, because all were busy with the server. ``connections`` is how many
    were open in the end. ``in_window`` of the successes were answered within ``window_ns`` from the
    start: the others came while a server that is behind caught up. ``over_limit`` of them took
    longer than ``limit_ns``.
    """

    def __init__(
        self,
        count: int,
        *,
        on_request: OnRequest | None = None,
        window_ns: int | None = None,
        limit_ns: float | None = None,
    ) -> None:
        super().__init__(on_request)
        self._left = count
        self._window_ns = _ENDLESS_NS if window_ns is None else window_ns
        self._limit_ns = _ENDLESS_NS if limit_ns is None else limit_ns
        self.in_window = 0
        self.over_limit = 0
        self.last_answer_ns = 0
        self.service = Latencies()
        self.lateness = Latencies()
        self.late_sends = 0
        self.client_late = 0
        self.connections = 0

    @property
    def outcomes(self) -> int:
        """Successes and failures so far."""
        return self.requests + self.failures

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        elapsed_ns = max(0, self.last_answer_ns - self.opened_ns)
        return Progress(self.requests, self.failures, self.over_limit, elapsed_ns)

    def open(self, now_ns: int) -> None:
        """The time begins: at the first send, or the start of a schedule."""
        self._open(now_ns)

    def noticed(self, late_ns: int) -> None:
        """The client saw that an instant of the schedule has come, ``late_ns`` after it."""
        if late_ns > LATE_NS:
            self.client_late += 1

    def sent(self, late_ns: int) -> None:
        """A scheduled request was sent, ``late_ns`` after its instant."""
        self.lateness.record(late_ns)
        if late_ns > LATE_NS:
            self.late_sends += 1

    def answered(self, started_ns: int, finished_ns: int, sent_ns: int | None = None) -> None:
        """A request succeeded; ``sent_ns`` is given where it was to start at ``started_ns``."""
        self.all_answers += 1
        self._count_success(started_ns, finished_ns)
        self.last_answer_ns = finished_ns
        if finished_ns - self.opened_ns <= self._window_ns:
            self.in_window += 1
        if finished_ns - started_ns > self._limit_ns:
            self.over_limit += 1
        if sent_ns is not None:
            self.service.record(finished_ns - sent_ns)
        self._passed(finished_ns)

    def failed(self, finished_ns: int, kind: str, text: str) -> None:
        """A request failed; ``kind`` is counted, the first ``text`` is kept as an example."""
        self._count_failure(kind, text)
        self._passed(finished_ns)

    def cut(self, dropped: int) -> None:
        """``dropped`` of the requests will not be sent after all."""
        self._left -= dropped

    def _passed(self, finished_ns: int) -> None:
        self._left -= 1
        if self._left == 0:
            self.close(finished_ns)
