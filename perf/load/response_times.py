"""When the responses of streaming requests came: the first, and each after the one before."""

from __future__ import annotations

from collections.abc import Sequence

from trimton.perf.load.tally import Latencies
from trimton.perf.results import StreamedResponses


class ResponseTimes:
    """Of all requests that were answered since the last ``reset``.

    ``first`` counts from the send to the first response, ``between`` from one response to the
    next, ``responses`` how many there were; a request may have none.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything, before a window for example."""
        self.first = Latencies()
        self.between = Latencies()
        self.requests = 0
        self.responses = 0

    @property
    def responses_per_request(self) -> float:
        """Their mean number; 0 without requests."""
        return self.responses / self.requests if self.requests else 0.0

    def as_record(self) -> StreamedResponses:
        """The counts in the form that results carry."""
        return StreamedResponses(
            requests=self.requests,
            responses=self.responses,
            first_histogram=self.first.histogram.encode(),
            first_mean_ms=self.first.mean_ms,
            between_histogram=self.between.histogram.encode(),
            between_mean_ms=self.between.mean_ms,
        )

    def add(self, other: ResponseTimes) -> None:
        """Count everything that ``other`` counted."""
        self.first.add(other.first)
        self.between.add(other.between)
        self.requests += other.requests
        self.responses += other.responses

    def record(self, sent_ns: int, responses_ns: Sequence[int]) -> None:
        """A request that was sent at ``sent_ns`` got its responses at these instants."""
        self.requests += 1
        self.responses += len(responses_ns)
        before_ns = sent_ns
        for latencies, at_ns in zip(
            (self.first, *(self.between for _ in responses_ns[1:])), responses_ns, strict=False
        ):
            latencies.record(at_ns - before_ns)
            before_ns = at_ns
