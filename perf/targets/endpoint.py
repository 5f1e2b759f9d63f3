"""A KServe v2 endpoint over HTTP: what a server says about itself, and inference one by one.

This is the control plane and the way to exact outputs; load goes through trimton.perf.load.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

from trimton.core.errors import InfrastructureError, InputError
from trimton.perf.load.requests import encode_body, infer_path
from trimton.perf.targets.address import Address
from trimton.perf.targets.answers import listed_outputs
from trimton.perf.targets.tensors import Array, TensorSpec
from trimton.perf.targets.tls import Tls

_HEAD_LENGTH = "Inference-Header-Content-Length"
_MAX_BATCH = "max_batch_size"


@dataclass(frozen=True)
class ServerMetadata:
    """Name and version, as the server itself reports them."""

    name: str
    version: str


@dataclass(frozen=True)
class ModelMetadata:
    """The inputs and outputs of a served model."""

    name: str
    versions: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Endpoint:
    """One server. Not safe for concurrent use: it keeps one connection.

    Every method raises InfrastructureError when the server does not answer, and InputError
    when it answers that it does not know the model.
    """

    def __init__(
        self,
        address: Address | str,
        *,
        tls: Tls | None = None,
        headers: Sequence[tuple[str, str]] = (),
        timeout_s: float = 60.0,
    ) -> None:
        self.address = Address.parse(address) if isinstance(address, str) else address
        self._headers = dict(headers)
        host, port = self.address.host, self.address.port
        self._connection = (
            http.client.HTTPConnection(host, port, timeout=timeout_s)
            if tls is None
            else http.client.HTTPSConnection(host, port, timeout=timeout_s, context=tls.context())
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        self._connection.close()

    def server_metadata(self) -> ServerMetadata:
        """``GET /v2``."""
        answer = self._get("/v2")
        return ServerMetadata(str(answer.get("name", "")), str(answer.get("version", "")))

    def is_ready(self) -> bool:
        """``GET /v2/health/ready``; False also where nothing answers."""
        try:
            return self._exchange("GET", "/v2/health/ready").status == 200
        except InfrastructureError:
            return False

    def is_version_ready(self, model: str, version: str) -> bool:
        """``GET /v2/models/M/versions/V/ready``."""
        path = f"{_model_path(model)}/versions/{quote(version, safe='')}/ready"
        return self._exchange("GET", path).status == 200

    def model_metadata(self, model: str) -> ModelMetadata:
        """``GET /v2/models/M``: names, datatypes and shapes (-1 becomes None)."""
        answer = self._get(_model_path(model))
        return ModelMetadata(
            name=str(answer["name"]),
            versions=tuple(str(version) for version in answer.get("versions", ())),
            inputs=tuple(_tensor_spec(item) for item in answer.get("inputs", ())),
            outputs=tuple(_tensor_spec(item) for item in answer.get("outputs", ())),
        )

    def model_config(self, model: str) -> dict[str, Any]:
        """``GET /v2/models/M/config``: the resolved configuration, a Triton extension."""
        return self._get(f"{_model_path(model)}/config")

    def max_batch_size(self, model: str) -> int | None:
        """The most samples in a request, from the configuration; None without such a limit."""
        return (
            int((self._extension(f"{_model_path(model)}/config") or {}).get(_MAX_BATCH, 0)) or None
        )

    def model_statistics(self, model: str) -> dict[str, Any] | None:
        """``GET /v2/models/M/stats``; None where the server has no statistics extension."""
        return self._extension(f"{_model_path(model)}/stats")

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        specs: Sequence[TensorSpec],
        *,
        version: str | None = None,
    ) -> dict[str, Array]:
        """The outputs for ``inputs`` by name; ``specs`` are the inputs of model_metadata.

        Without ``version`` the server chooses it, the highest that it serves.
        Raises InputError with the server's words when it refuses the request.
        """
        body, head_length = encode_body(inputs, specs)
        answer = self._exchange(
            "POST",
            infer_path(model, version),
            body,
            {"Content-Type": "application/octet-stream", _HEAD_LENGTH: str(head_length)},
        )
        return answer.tensors()

    def register_shared_memory(self, region: str, key: str, size_bytes: int) -> None:
        """Let the server map the shared memory ``key`` under the name ``region``."""
        body = json.dumps({"key": key, "offset": 0, "byte_size": size_bytes}).encode()
        self._exchange("POST", _region_path(region, "register"), body).json()

    def unregister_shared_memory(self, region: str) -> None:
        """Let the server forget ``region``."""
        self._exchange("POST", _region_path(region, "unregister")).json()

    def _get(self, path: str) -> dict[str, Any]:
        return self._exchange("GET", path).json()

    def _extension(self, path: str) -> dict[str, Any] | None:
        """What Triton answers beyond KServe v2; None from a server without that extension."""
        answer = self._exchange("GET", path)
        return None if answer.status in (404, 405, 501) else answer.json()

    def _exchange(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> _Answer:
        fresh = self._connection.sock is None
        try:
            return self._send(method, path, body, headers or {})
        except (http.client.HTTPException, OSError) as error:
            self._connection.close()
            if fresh:
                raise self._silent(error) from error
        # A kept connection may have been closed by the server while it was idle.
        try:
            return self._send(method, path, body, headers or {})
        except (http.client.HTTPException, OSError) as error:
            self._connection.close()
            raise self._silent(error) from error

    def _send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> _Answer:
        self._connection.request(method, path, body or None, self._headers | dict(headers))
        response = self._connection.getresponse()
        head_length = response.getheader(_HEAD_LENGTH)
        return _Answer(
            self.address,
            response.status,
            response.read(),
            None if head_length is None else int(head_length),
        )

    def _silent(self, error: Exception) -> InfrastructureError:
        if isinstance(error, http.client.HTTPException) and not isinstance(
            error, http.client.RemoteDisconnected
        ):
            return InfrastructureError(
                f"what answers at {self.address} does not speak HTTP; "
                "give the HTTP port of the server (not gRPC or metrics)."
            )
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return InfrastructureError(
            f"the server at {self.address} does not answer ({reason.lower()}); "
            "check that it runs and the address is right."
        )


@dataclass(frozen=True)
class _Answer:
    address: Address
    status: int
    body: bytes
    head_length: int | None

    def json(self) -> dict[str, Any]:
        return self._object(self.body)

    def tensors(self) -> dict[str, Array]:
        length = len(self.body) if self.head_length is None else self.head_length
        return listed_outputs(self._object(self.body[:length]), memoryview(self.body)[length:])

    def _object(self, text: bytes) -> dict[str, Any]:
        try:
            value = json.loads(text) if text else {}
        except ValueError:
            value = None
        if self.status != 200:
            said = value.get("error") if isinstance(value, dict) else None
            reason = f"answers: {said}" if said else f"answers with HTTP status {self.status}"
            kind = InputError if 400 <= self.status < 500 else InfrastructureError
            raise kind(f"the server at {self.address} {reason.strip().rstrip('.')}.")
        if not isinstance(value, dict):
            raise InfrastructureError(
                f"the server at {self.address} does not answer in JSON; is it a KServe v2 server?"
            )
        return value


def _model_path(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}"


def _region_path(region: str, action: str) -> str:
    return f"/v2/systemsharedmemory/region/{quote(region, safe='')}/{action}"


def _tensor_spec(item: Mapping[str, Any]) -> TensorSpec:
    shape = tuple(None if int(n) < 0 else int(n) for n in item["shape"])
    return TensorSpec(str(item["name"]), str(item["datatype"]), shape)
