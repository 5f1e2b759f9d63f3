"""What unary and streaming calls have in common: their place in a pool, and how they fail.

Source: gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

from urllib.parse import unquote

from trimton.perf.load.connection import MALFORMED, TIMED_OUT, OnAnswer, OnFailure
from trimton.perf.load.grpc_pool import Http2Pool
from trimton.perf.load.hpack_blocks import Fields
from trimton.perf.load.http2 import Http2Connection
from trimton.perf.load.http2_stream import Http2Stream

SERVICE = "/inference.GRPCInferenceService"
OK = "0"
# Source: grpc/doc/statuscodes.md, by number.
STATUS_NAMES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)


class GrpcCall(Http2Stream):
    """A user of a pooled HTTP/2 connection; see trimton.perf.load.connection.Connection."""

    __slots__ = (
        "_http2",
        "_http_status",
        "_on_answer",
        "_on_failure",
        "_pool",
        "_uses_pool",
        "has_answered",
        "in_flight",
        "sent_ns",
    )

    def __init__(
        self, pool: Http2Pool, http2: Http2Connection, on_answer: OnAnswer, on_failure: OnFailure
    ) -> None:
        super().__init__()
        self._pool = pool
        self._http2 = http2
        self._http_status = ""
        self._on_answer = on_answer
        self._on_failure = on_failure
        self._uses_pool = True
        self.has_answered = False
        self.in_flight = False
        self.sent_ns = 0

    @property
    def reusable(self) -> bool:
        """Whether another request can be sent."""
        return self._uses_pool and self._http2.accepts_streams

    def send(self, request: bytes) -> None:
        """Write ``request`` and start its clock (monotonic, nanoseconds)."""
        raise NotImplementedError

    def close(self) -> None:
        """Drop the connection without a report."""
        raise NotImplementedError

    def give_up(self) -> None:
        """End a request that takes too long: reported as timed out, the connection dropped.

        A TCP connection that brought nothing since the request was sent counts as dead.
        """
        http2, is_dead = self._http2, self._http2.received_ns < self.sent_ns
        self.close()
        self._on_failure(self, TIMED_OUT, "no answer within the time limit")
        if is_dead:
            http2.abort(TIMED_OUT, "the connection is silent")

    def on_headers(self, fields: Fields) -> None:
        """Keeps an HTTP status that is not 200: a proxy's answer, not gRPC's."""
        status = fields.get(":status", "")
        self._http_status = "" if status == "200" else status


def failure_of(fields: Fields, http_status: str = "") -> tuple[str, str]:
    """Kind and text of a call that ended with these trailers and not well."""
    status = fields.get("grpc-status")
    http_status = http_status or fields.get(":status", "200")
    if status is None and http_status != "200":
        return f"HTTP {http_status}", "the answer does not come from gRPC"
    if status is None:
        return MALFORMED, "the answer carries no gRPC status"
    if status == OK:
        return MALFORMED, "the answer carries no message"
    number = int(status) if status.isdecimal() else len(STATUS_NAMES)
    name = STATUS_NAMES[number] if number < len(STATUS_NAMES) else status
    return f"gRPC {name}", unquote(fields.get("grpc-message", ""))
