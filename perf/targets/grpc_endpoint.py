"""A KServe v2 endpoint over gRPC: the same questions and answers as over HTTP.

This is the control plane and the way to exact outputs; load goes through trimton.perf.load.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from typing import Any, Self, TypeVar

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from trimton.core.errors import InfrastructureError, InputError
from trimton.perf.load.grpc_requests import infer_message
from trimton.perf.load.infer_request import infer_request
from trimton.perf.targets.address import DEFAULT_GRPC_PORT, Address
from trimton.perf.targets.answers import outputs_of_message
from trimton.perf.targets.endpoint import ModelMetadata, ServerMetadata
from trimton.perf.targets.tensors import Array, TensorSpec
from trimton.perf.targets.tls import Tls, shown_certificate

_UNLIMITED = -1
_OPTIONS = (
    ("grpc.max_send_message_length", _UNLIMITED),
    ("grpc.max_receive_message_length", _UNLIMITED),
    # The environment's proxy is for the web, not for the server that is measured.
    ("grpc.enable_http_proxy", 0),
)
# What the server says about the request; every other status is about the server.
_REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
_SILENCE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_PROBE_TIMEOUT_S = 2.0

T = TypeVar("T")


class GrpcEndpoint:
    """One server; see trimton.perf.targets.model_endpoint.ModelEndpoint for what is raised."""

    def __init__(
        self,
        address: Address | str,
        *,
        tls: Tls | None = None,
        headers: Sequence[tuple[str, str]] = (),
        timeout_s: float = 60.0,
    ) -> None:
        self.address = (
            Address.parse(address, DEFAULT_GRPC_PORT, "gRPC")
            if isinstance(address, str)
            else address
        )
        self._metadata = tuple((name.lower(), value) for name, value in headers)
        self._timeout_s = timeout_s
        self._tls = tls
        self._channel = _channel(self.address, tls)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection for good."""
        self._channel.close()

    def server_metadata(self) -> ServerMetadata:
        """``ServerMetadata``."""
        answer = self._call(self._stub.ServerMetadata, service_pb2.ServerMetadataRequest())
        return ServerMetadata(answer.name, answer.version)

    def is_ready(self) -> bool:
        """``ServerReady``; False also where nothing answers."""
        try:
            answer = self._call(self._stub.ServerReady, service_pb2.ServerReadyRequest())
        except InfrastructureError:
            return False
        return bool(answer.ready)

    def model_metadata(self, model: str) -> ModelMetadata:
        """``ModelMetadata``: names, datatypes and shapes (-1 becomes None)."""
        request = service_pb2.ModelMetadataRequest(name=model)
        answer = self._call(self._stub.ModelMetadata, request)
        return ModelMetadata(
            name=answer.name,
            versions=tuple(answer.versions),
            inputs=tuple(map(_tensor_spec, answer.inputs)),
            outputs=tuple(map(_tensor_spec, answer.outputs)),
        )

    def model_config(self, model: str) -> dict[str, Any]:
        """``ModelConfig``: the resolved configuration, a Triton extension."""
        request = service_pb2.ModelConfigRequest(name=model)
        return _plain(self._call(self._stub.ModelConfig, request).config)

    def max_batch_size(self, model: str) -> int | None:
        """The most samples in a request, from the configuration; None without such a limit."""
        request = service_pb2.ModelConfigRequest(name=model)
        answer = self._extension(self._stub.ModelConfig, request)
        return None if answer is None else int(answer.config.max_batch_size) or None

    def model_statistics(self, model: str) -> dict[str, Any] | None:
        """``ModelStatistics``; None where the server has no statistics extension."""
        request = service_pb2.ModelStatisticsRequest(name=model)
        answer = self._extension(self._stub.ModelStatistics, request)
        return None if answer is None else _plain(answer)

    def infer(
        self, model: str, inputs: Mapping[str, Array], specs: Sequence[TensorSpec]
    ) -> dict[str, Array]:
        """The outputs for ``inputs`` by name; ``specs`` are the inputs of model_metadata."""
        message = infer_message(infer_request(model, inputs, specs))
        return outputs_of_message(self._call(self._stub.ModelInfer, message))

    def register_shared_memory(self, region: str, key: str, size_bytes: int) -> None:
        """Let the server map the shared memory ``key`` under the name ``region``."""
        request = service_pb2.SystemSharedMemoryRegisterRequest(
            name=region, key=key, offset=0, byte_size=size_bytes
        )
        self._call(self._stub.SystemSharedMemoryRegister, request)

    def unregister_shared_memory(self, region: str) -> None:
        """Let the server forget ``region``."""
        request = service_pb2.SystemSharedMemoryUnregisterRequest(name=region)
        self._call(self._stub.SystemSharedMemoryUnregister, request)

    def _call(self, method: Callable[..., T], request: object) -> T:
        try:
            return self._send(method, request)
        except grpc.RpcError as error:
            raise self._explained(error) from error

    def _extension(self, method: Callable[..., T], request: object) -> T | None:
        """What Triton answers beyond KServe v2; None from a server without that extension."""
        try:
            return self._send(method, request)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise self._explained(error) from error

    def _send(self, method: Callable[..., T], request: object) -> T:
        return method(request, timeout=self._timeout_s, metadata=self._metadata)

    def _explained(self, error: Any) -> InputError | InfrastructureError:
        code, words = error.code(), " ".join((error.details() or "").split()).rstrip(".")
        if code in _SILENCE:
            return self._silent(words)
        kind = InputError if code in _REFUSALS else InfrastructureError
        return kind(f"the server at {self.address} answers: {words or code.name}.")

    def _silent(self, words: str) -> InfrastructureError:
        if self._speaks_http():
            return InfrastructureError(
                f"what answers at {self.address} speaks HTTP, not gRPC; give the gRPC port of "
                f"the server (usually {DEFAULT_GRPC_PORT})."
            )
        reason = words.lower().rsplit(": ", 1)[-1]
        return InfrastructureError(
            f"the server at {self.address} does not answer over gRPC ({reason}); "
            "check that it runs and that this is its gRPC address."
        )

    def _speaks_http(self) -> bool:
        host, port = self.address.host, self.address.port
        connection = http.client.HTTPConnection(host, port, timeout=_PROBE_TIMEOUT_S)
        try:
            connection.request("GET", "/v2/health/live")
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True


def _channel(address: Address, tls: Tls | None) -> Any:
    if tls is None:
        return grpc.insecure_channel(str(address), options=_OPTIONS)
    tls.context()  # says in one sentence which file is wrong; gRPC would say "bad handshake"
    options: list[tuple[str, Any]] = list(_OPTIONS)
    authorities = None if tls.ca_file is None else tls.ca_file.read_bytes()
    if tls.insecure:
        certificate, name = shown_certificate(address, tls)
        authorities = certificate.encode()
        options.append(("grpc.ssl_target_name_override", name))
    key_file = tls.key_file or tls.certificate_file
    credentials = grpc.ssl_channel_credentials(
        authorities,
        None if key_file is None else key_file.read_bytes(),
        None if tls.certificate_file is None else tls.certificate_file.read_bytes(),
    )
    return grpc.secure_channel(str(address), credentials, options=options)


def _tensor_spec(item: Any) -> TensorSpec:
    shape = tuple(None if n < 0 else int(n) for n in item.shape)
    return TensorSpec(item.name, item.datatype, shape)


def _plain(message: Any) -> dict[str, Any]:
    """A message as HTTP answers it in JSON: fields by name, whole numbers as numbers."""
    return {
        field.name: _plain_value(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _plain_value(field: Any, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        return {key: _plain_value(entry, item) for key, item in value.items()}
    if isinstance(value, MutableSequence):
        return [_plain_item(field, item) for item in value]
    return _plain_item(field, value)


def _plain_item(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _plain(value)
    return field.enum_type.values_by_number[value].name if field.enum_type is not None else value
