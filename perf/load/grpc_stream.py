"""Streaming inference over gRPC: one request, any number of responses.

Each connection keeps one ``ModelStreamInfer`` call open and sends one request at a time through
it. A decoupled model ends the responses to a request with one that is marked as final; any other
model answers with one response, without a mark.

Source: KServe v2 over gRPC with Triton's streaming extension and ``triton_final_response``
(Triton, "Decoupled Backends and Models").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import monotonic_ns
from typing import Any

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from trimton.perf.load.connection import CLOSED, MALFORMED, OnAnswer, OnFailure
from trimton.perf.load.grpc_call import SERVICE, GrpcCall, failure_of
from trimton.perf.load.grpc_pool import STREAMS_PER_TCP_CONNECTION, Http2Pool
from trimton.perf.load.grpc_requests import PREFIX_BYTES, encode_grpc_message
from trimton.perf.load.hpack_blocks import Field, Fields
from trimton.perf.load.http2 import Http2Connection
from trimton.perf.load.infer_request import InferRequest
from trimton.perf.load.response_times import ResponseTimes
from trimton.perf.targets.address import Address
from trimton.perf.targets.tls import Tls

# What the server says about one request inside a stream that goes on.
REFUSED_IN_STREAM = "gRPC stream error"

_FINAL = "triton_final_response"
_MARK_THE_END = {"triton_enable_empty_final_response": True}


def encode_stream_message(request: InferRequest, *, compressed: bool = False) -> bytes:
    """``request`` as a message of a stream: the end of its responses is to be marked."""
    marked = replace(request, parameters={**request.parameters, **_MARK_THE_END})
    return encode_grpc_message(marked, compressed=compressed)


class GrpcStreamConnection(GrpcCall):
    """Requests through one stream.

    ``on_answer`` follows the last response to a request.
    """

    __slots__ = ("_buffer", "_is_started", "_responses_ns", "_times")

    def __init__(
        self,
        pool: Http2Pool,
        http2: Http2Connection,
        times: ResponseTimes,
        on_answer: OnAnswer,
        on_failure: OnFailure,
    ) -> None:
        super().__init__(pool, http2, on_answer, on_failure)
        self._times = times
        self._buffer = bytearray()
        self._is_started = False
        self._responses_ns: list[int] = []

    def send(self, request: bytes) -> None:
        """Write ``request`` and start its clock (monotonic, nanoseconds)."""
        self.in_flight = True
        self._responses_ns.clear()
        self.sent_ns = monotonic_ns()
        if self._is_started:
            self._http2.send(self, request)
        else:
            self._is_started = True
            self._http2.request(self, request, ends=False)

    def close(self) -> None:
        """Drop the connection without a report."""
        self.in_flight = False
        if self._uses_pool:
            self._uses_pool = False
            self._http2.cancel(self)
            self._pool.release(self._http2)

    def on_data(self, data: bytes) -> None:
        """Takes the responses apart; they need not begin or end where frames do."""
        self._buffer += data
        while self._uses_pool and len(self._buffer) >= PREFIX_BYTES:
            end = PREFIX_BYTES + int.from_bytes(self._buffer[1:PREFIX_BYTES])
            if len(self._buffer) < end:
                return
            message = bytes(self._buffer[PREFIX_BYTES:end])
            del self._buffer[:end]
            self._on_message(message)

    def on_end(self, fields: Fields) -> None:
        """The server ended the stream, which only we should do."""
        kind, text = failure_of(fields, self._http_status)
        self.on_failure(CLOSED if kind == MALFORMED else kind, text)

    def on_failure(self, kind: str, text: str) -> None:
        """The stream was cut off."""
        was_in_flight = self.in_flight
        self.close()
        if was_in_flight:
            self._on_failure(self, kind, text)

    def _on_message(self, message: bytes) -> None:
        try:
            answer = service_pb2.ModelStreamInferResponse.FromString(message)
        except DecodeError:
            self.on_failure(MALFORMED, "a response that is no ModelStreamInferResponse")
            return
        if not self.in_flight:
            self.on_failure(MALFORMED, "the server sent a response after the final one")
            return
        received_ns = self._http2.received_ns
        self.has_answered = True
        if answer.error_message:
            self.in_flight = False
            self._on_failure(self, REFUSED_IN_STREAM, answer.error_message)
            return
        response = answer.infer_response
        if response.outputs:
            self._responses_ns.append(received_ns)
        if _is_final(response):
            self.in_flight = False
            self._times.record(self.sent_ns, self._responses_ns)
            self._on_answer(self, received_ns)


class GrpcStreamConnector:
    """Opens streams to one server; ``times`` collects when the responses came.

    Raises InputError for TLS files that cannot be used.
    """

    def __init__(
        self,
        address: Address,
        tls: Tls | None = None,
        metadata: Sequence[Field] = (),
        streams_per_tcp_connection: int = STREAMS_PER_TCP_CONNECTION,
    ) -> None:
        self.times = ResponseTimes()
        self._pool = Http2Pool(
            address,
            f"{SERVICE}/ModelStreamInfer",
            tls=tls,
            metadata=metadata,
            streams=streams_per_tcp_connection,
            wants_data=True,
        )

    @property
    def where(self) -> str:
        """The server, for messages: ``host:port``."""
        return str(self._pool.address)

    async def open(self, on_answer: OnAnswer, on_failure: OnFailure) -> GrpcStreamConnection:
        """A new connection; OSError where the server does not accept it."""
        http2 = await self._pool.acquire()
        return GrpcStreamConnection(self._pool, http2, self.times, on_answer, on_failure)


def _is_final(response: Any) -> bool:
    return _FINAL not in response.parameters or response.parameters[_FINAL].bool_param
