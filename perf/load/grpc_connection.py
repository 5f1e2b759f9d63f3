"""gRPC calls as connections: one prepared request in flight on each, its own HTTP/2 stream.

Several connections share one TCP connection, as the channels of gRPC clients do; the kernel and
the server then handle what belongs together at once. A prepared request is the length-prefixed
message (trimton.perf.load.grpc_requests); no protobuf work is done for it.

Source: gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic_ns

from trimton.perf.load.connection import OnAnswer, OnFailure
from trimton.perf.load.grpc_call import OK, SERVICE, GrpcCall, failure_of
from trimton.perf.load.grpc_pool import STREAMS_PER_TCP_CONNECTION, Http2Pool
from trimton.perf.load.hpack_blocks import Field, Fields
from trimton.perf.load.http2 import Http2Connection
from trimton.perf.targets.address import Address
from trimton.perf.targets.tls import Tls


class GrpcConnection(GrpcCall):
    """Unary calls, one after the other."""

    __slots__ = ("_content",)

    def __init__(
        self, pool: Http2Pool, http2: Http2Connection, on_answer: OnAnswer, on_failure: OnFailure
    ) -> None:
        super().__init__(pool, http2, on_answer, on_failure)
        self._content: list[bytes] = []

    @property
    def answer(self) -> bytes:
        """The message of the last answer, where the connector keeps answers."""
        return b"".join(self._content)

    def send(self, request: bytes) -> None:
        """Write ``request`` and start its clock (monotonic, nanoseconds)."""
        self.in_flight = True
        if self._content:
            self._content.clear()
        self.sent_ns = monotonic_ns()
        self._http2.request(self, request)

    def close(self) -> None:
        """Drop the connection without a report."""
        if self.in_flight:
            self.in_flight = False
            self._http2.cancel(self)
        if self._uses_pool:
            self._uses_pool = False
            self._pool.release(self._http2)

    def on_data(self, data: bytes) -> None:
        """Keeps a piece of the answer."""
        self._content.append(data)

    def on_end(self, fields: Fields) -> None:
        """The call ended; ``fields`` hold its status."""
        self.in_flight = False
        self.has_answered = True
        if not self._http2.accepts_streams:
            self.close()
        if fields.get("grpc-status") == OK and self.received_bytes:
            self._on_answer(self, self._http2.received_ns)
        else:
            self._on_failure(self, *failure_of(fields, self._http_status))

    def on_failure(self, kind: str, text: str) -> None:
        """The call was cut off."""
        self.in_flight = False
        self.close()
        self._on_failure(self, kind, text)


class GrpcConnector:
    """Opens connections for inference calls to one server, with ``metadata`` in every call.

    ``keeps_answers`` is for those who look into them: else their content is not read. Raises
    InputError for TLS files that cannot be used.
    """

    def __init__(
        self,
        address: Address,
        tls: Tls | None = None,
        metadata: Sequence[Field] = (),
        streams_per_tcp_connection: int = STREAMS_PER_TCP_CONNECTION,
        *,
        keeps_answers: bool = False,
    ) -> None:
        self._pool = Http2Pool(
            address,
            f"{SERVICE}/ModelInfer",
            tls=tls,
            metadata=metadata,
            streams=streams_per_tcp_connection,
            wants_data=keeps_answers,
        )

    @property
    def where(self) -> str:
        """The server, for messages: ``host:port``."""
        return str(self._pool.address)

    async def open(self, on_answer: OnAnswer, on_failure: OnFailure) -> GrpcConnection:
        """A new connection; OSError where the server does not accept it."""
        return GrpcConnection(self._pool, await self._pool.acquire(), on_answer, on_failure)
