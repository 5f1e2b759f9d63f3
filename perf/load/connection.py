"""What a load needs of a protocol: connections that carry one prepared request at a time.

A protocol (HTTP/1.1, gRPC, …) brings a connector; a mode of load (closed loop, rate, trace, …)
opens connections with it and decides when each sends. Neither knows the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

# How a request can fail, as counted in the errors of a window. A refusal by the server is
# counted under its status ("HTTP 400", "gRPC INVALID_ARGUMENT").
CLOSED = "connection closed"
MALFORMED = "malformed response"
REFUSED = "connection refused"
TIMED_OUT = "timed out"


class Connection(Protocol):
    """Sends prepared requests and reports how each ended.

    ``on_answer(connection, finished_ns)`` follows a success, ``on_failure(connection, kind,
    text)`` anything else. After a failure, or when ``reusable`` is False, the connection must be
    replaced; ``has_answered`` tells whether it ever carried an answer, so that a server which
    drops every connection is not called in a tight loop. Clocks are monotonic, in nanoseconds.
    """

    @property
    def has_answered(self) -> bool: ...

    @property
    def in_flight(self) -> bool: ...

    @property
    def reusable(self) -> bool: ...

    @property
    def sent_ns(self) -> int: ...

    def send(self, request: bytes) -> None:
        """Write ``request`` and start its clock."""

    def give_up(self) -> None:
        """End a request that takes too long: reported as timed out, the connection dropped."""

    def close(self) -> None:
        """Drop the connection without a report."""


OnAnswer = Callable[[Connection, int], None]
OnFailure = Callable[[Connection, str, str], None]


class Connector(Protocol):
    """Opens connections of one protocol to one server."""

    @property
    def where(self) -> str:
        """The server, for messages: ``host:port``."""

    async def open(self, on_answer: OnAnswer, on_failure: OnFailure) -> Connection:
        """A new connection; OSError where the server does not accept it."""
