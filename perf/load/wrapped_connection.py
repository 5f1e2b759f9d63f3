"""A connection that adds something to another one and leaves the rest to it."""

from __future__ import annotations

from typing import Generic, TypeVar

from trimton.perf.load.connection import Connection, OnAnswer, OnFailure

C = TypeVar("C", bound=Connection)


class WrappedConnection(Generic[C]):
    """Passes everything on to ``inner``; see trimton.perf.load.connection.Connection.

    ``inner`` is opened with ``answered`` and ``failed`` as its listeners.
    """

    __slots__ = ("_on_answer", "_on_failure", "inner")

    inner: C

    def __init__(self, on_answer: OnAnswer, on_failure: OnFailure) -> None:
        self._on_answer = on_answer
        self._on_failure = on_failure

    @property
    def has_answered(self) -> bool:
        """Whether it ever carried an answer."""
        return self.inner.has_answered

    @property
    def in_flight(self) -> bool:
        """Whether an answer is awaited."""
        return self.inner.in_flight

    @property
    def reusable(self) -> bool:
        """Whether another request can be sent."""
        return self.inner.reusable

    @property
    def sent_ns(self) -> int:
        """When the last request was sent."""
        return self.inner.sent_ns

    def send(self, request: bytes) -> None:
        """Write ``request`` and start its clock."""
        self.inner.send(request)

    def give_up(self) -> None:
        """End a request that takes too long."""
        self.inner.give_up()

    def close(self) -> None:
        """Drop the connection without a report."""
        self.inner.close()

    def answered(self, inner: Connection, finished_ns: int) -> None:
        """A request succeeded."""
        self._on_answer(self, finished_ns)

    def failed(self, inner: Connection, kind: str, text: str) -> None:
        """A request failed."""
        self._on_failure(self, kind, text)
