"""The protocols that a load can speak. A new one is a file of its own and a row here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from trimton.core.errors import InputError
from trimton.perf.load.checked_connection import (
    CheckedConnector,
    KeepingConnector,
    ReadOutputs,
)
from trimton.perf.load.connection import Connector
from trimton.perf.load.grpc_connection import GrpcConnector
from trimton.perf.load.grpc_pool import streams_for
from trimton.perf.load.grpc_requests import encode_grpc_message, outputs_of_grpc_message
from trimton.perf.load.grpc_stream import GrpcStreamConnector, encode_stream_message
from trimton.perf.load.http_answer import outputs_of_answer
from trimton.perf.load.http_connection import HttpConnector
from trimton.perf.load.infer_request import InferRequest, infer_request
from trimton.perf.load.output_check import OutputCheck
from trimton.perf.load.requests import encode_message, within_memory
from trimton.perf.load.response_times import ResponseTimes
from trimton.perf.load.shared_memory import in_shared_memory, sizes_of_outputs
from trimton.perf.targets.access import Access
from trimton.perf.targets.address import DEFAULT_GRPC_PORT, DEFAULT_HTTP_PORT
from trimton.perf.targets.endpoint import Endpoint
from trimton.perf.targets.grpc_endpoint import GrpcEndpoint
from trimton.perf.targets.model_endpoint import ModelEndpoint
from trimton.perf.targets.tensors import Array, TensorSpec


@dataclass(frozen=True)
class WireProtocol:
    """How to ask a server, connect to it and encode requests.

    ``port_of`` is what the server's port is called.

    The boolean of ``connector`` and ``encode`` asks for gzip in the content of requests, the
    number of ``connector`` is the size of the largest request in bytes. ``answers`` is for those
    who look into answers; None where these cannot be looked into.
    """

    name: str
    port_of: str
    default_port: int
    endpoint: Callable[[Access], ModelEndpoint]
    connector: Callable[[Access, bool, int], Connector]
    encode: Callable[[InferRequest, Access, bool], bytes]
    answers: ReadableAnswers | None = None

    def checked_connector(
        self,
        access: Access,
        compressed: bool,
        largest_bytes: int,
        requests: Sequence[bytes],
        check: OutputCheck,
    ) -> Connector:
        """As ``connector``, and the answers to ``requests`` must pass ``check``.

        Raises InputError where the protocol's answers cannot be looked into.
        """
        if self.answers is None:
            raise InputError("streamed responses are not checked; leave --validate out.")
        keeping = self.answers.connector(access, compressed, largest_bytes)
        return CheckedConnector(keeping, requests, check, self.answers.read)


@dataclass(frozen=True)
class ReadableAnswers:
    """Connections that keep their answers, and how to read the outputs in these."""

    connector: Callable[[Access, bool, int], KeepingConnector]
    read: ReadOutputs


@dataclass(frozen=True)
class PreparedLoad:
    """What a mode of load needs: connections, and the requests to send over them in turn.

    ``response_times`` is filled by protocols with several responses to a request.
    """

    connector: Connector
    requests: tuple[bytes, ...]
    response_times: ResponseTimes | None = None


def _http_endpoint(access: Access) -> ModelEndpoint:
    return Endpoint(access.address, tls=access.tls, headers=access.headers)


def _http_connector(access: Access, compressed: bool, largest_bytes: int) -> HttpConnector:
    return HttpConnector(access.address, access.tls)


def _http_message(request: InferRequest, access: Access, compressed: bool) -> bytes:
    return encode_message(request, str(access.address), access.headers, compressed=compressed)


def _grpc_endpoint(access: Access) -> ModelEndpoint:
    return GrpcEndpoint(access.address, tls=access.tls, headers=access.headers)


def _grpc_connector(access: Access, compressed: bool, largest_bytes: int) -> Connector:
    metadata = _grpc_metadata(access, compressed)
    return GrpcConnector(access.address, access.tls, metadata, streams_for(largest_bytes))


def _keeping_grpc_connector(access: Access, compressed: bool, largest_bytes: int) -> GrpcConnector:
    metadata = _grpc_metadata(access, compressed)
    return GrpcConnector(
        access.address, access.tls, metadata, streams_for(largest_bytes), keeps_answers=True
    )


def _grpc_metadata(access: Access, compressed: bool) -> tuple[tuple[str, str], ...]:
    return (*access.headers, ("grpc-encoding", "gzip")) if compressed else access.headers


def _grpc_message(request: InferRequest, access: Access, compressed: bool) -> bytes:
    return encode_grpc_message(request, compressed=compressed)


def _stream_connector(access: Access, compressed: bool, largest_bytes: int) -> Connector:
    metadata = _grpc_metadata(access, compressed)
    return GrpcStreamConnector(access.address, access.tls, metadata, streams_for(largest_bytes))


def _stream_message(request: InferRequest, access: Access, compressed: bool) -> bytes:
    return encode_stream_message(request, compressed=compressed)


_STREAMING = "grpc-stream"
PROTOCOLS: Mapping[str, WireProtocol] = {
    protocol.name: protocol
    for protocol in (
        WireProtocol(
            "http",
            "HTTP",
            DEFAULT_HTTP_PORT,
            _http_endpoint,
            _http_connector,
            _http_message,
            ReadableAnswers(_http_connector, outputs_of_answer),
        ),
        WireProtocol(
            "grpc",
            "gRPC",
            DEFAULT_GRPC_PORT,
            _grpc_endpoint,
            _grpc_connector,
            _grpc_message,
            ReadableAnswers(_keeping_grpc_connector, outputs_of_grpc_message),
        ),
        WireProtocol(
            _STREAMING,
            "gRPC",
            DEFAULT_GRPC_PORT,
            _grpc_endpoint,
            _stream_connector,
            _stream_message,
        ),
    )
}


def protocol_named(name: str, *, streaming: bool = False) -> WireProtocol:
    """The protocol called ``name``; with ``streaming`` the form of it that streams responses.

    Raises InputError for an unknown one, and for one that does not stream.
    """
    known = [key for key in PROTOCOLS if key != _STREAMING]
    if name.lower() not in known:
        raise InputError(f"{name!r} is no protocol; choose one of {', '.join(known)}.")
    if streaming and name.lower() != "grpc":
        raise InputError("responses are streamed over gRPC only; choose the protocol grpc.")
    return PROTOCOLS[_STREAMING if streaming else name.lower()]


def prepare_load(
    protocol: WireProtocol,
    access: Access,
    model: str,
    feeds: Iterable[Mapping[str, Array]],
    specs: Sequence[TensorSpec],
    *,
    compressed: bool = False,
) -> PreparedLoad:
    """One request for each of ``feeds`` (inputs by name) that fits into memory, at least one.

    Raises InputError for an input that is not in ``specs``, the inputs of the model, and for
    TLS files that cannot be used.
    """
    requests = (infer_request(model, feed, specs) for feed in feeds)
    return prepare_requests_of(protocol, access, requests, compressed=compressed)


def prepare_requests_of(
    protocol: WireProtocol,
    access: Access,
    requests: Iterable[InferRequest],
    *,
    compressed: bool = False,
) -> PreparedLoad:
    """As prepare_load, for requests that are there already (with shared memory, for example)."""
    messages = (protocol.encode(request, access, compressed) for request in requests)
    kept = within_memory(messages)
    connector = protocol.connector(access, compressed, max(map(len, kept)))
    return PreparedLoad(connector, kept, response_times_of(connector))


def response_times_of(connector: Connector) -> ResponseTimes | None:
    """Where a streaming ``connector`` records its responses; None for any other."""
    return connector.times if isinstance(connector, GrpcStreamConnector) else None


@contextmanager
def shared_memory_load(
    protocol: WireProtocol,
    access: Access,
    endpoint: ModelEndpoint,
    model: str,
    feeds: Sequence[Mapping[str, Array]],
    *,
    batch: int,
    in_flight: int,
) -> Iterator[PreparedLoad]:
    """As prepare_load, with inputs and outputs in system shared memory until the block ends.

    ``in_flight`` is the most requests that will be under way at once. See
    trimton.perf.load.shared_memory for what is raised.
    """
    specs = endpoint.model_metadata(model).inputs
    sizes = sizes_of_outputs(endpoint, model, feeds, batch)
    requests = [infer_request(model, feed, specs) for feed in feeds]
    with in_shared_memory(endpoint, requests, sizes, in_flight=in_flight) as shared:
        yield prepare_requests_of(protocol, access, shared)
