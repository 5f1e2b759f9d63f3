"""What Trimton asks a server, whatever the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from trimton.perf.targets.address import Address
from trimton.perf.targets.endpoint import ModelMetadata, ServerMetadata
from trimton.perf.targets.tensors import Array, TensorSpec


class ModelEndpoint(Protocol):
    """The control plane of one server; see trimton.perf.targets.endpoint.Endpoint.

    Every method raises InfrastructureError when the server does not answer, and InputError
    when it answers that it does not know the model or refuses the request.
    """

    @property
    def address(self) -> Address: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None: ...

    def server_metadata(self) -> ServerMetadata: ...

    def is_ready(self) -> bool: ...

    def model_metadata(self, model: str) -> ModelMetadata: ...

    def model_config(self, model: str) -> dict[str, Any]: ...

    def max_batch_size(self, model: str) -> int | None: ...

    def model_statistics(self, model: str) -> dict[str, Any] | None: ...

    def infer(
        self, model: str, inputs: Mapping[str, Array], specs: Sequence[TensorSpec]
    ) -> dict[str, Array]: ...

    def register_shared_memory(self, region: str, key: str, size_bytes: int) -> None: ...

    def unregister_shared_memory(self, region: str) -> None: ...
