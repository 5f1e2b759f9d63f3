"""An inference request in KServe v2's terms, before a protocol turns it into bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trimton.core.errors import InputError
from trimton.perf.targets.tensors import Array, TensorSpec, pack

# A parameter of a request; KServe v2 knows these types.
Parameter = bool | int | str


@dataclass(frozen=True)
class SharedSlice:
    """Bytes in a registered shared memory region."""

    region: str
    offset_bytes: int
    size_bytes: int

    def parameters(self) -> dict[str, Parameter]:
        """How a request refers to them (Triton's shared memory extension)."""
        parameters: dict[str, Parameter] = {
            "shared_memory_region": self.region,
            "shared_memory_byte_size": self.size_bytes,
        }
        if self.offset_bytes:
            parameters["shared_memory_offset"] = self.offset_bytes
        return parameters


@dataclass(frozen=True)
class RequestTensor:
    """One input: its packed values, or where they lie in shared memory."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    content: bytes | SharedSlice


@dataclass(frozen=True)
class InferRequest:
    """One request for ``model``.

    ``outputs`` says where in shared memory outputs are to be put; without any, the server
    answers with all outputs of the model.
    """

    model: str
    inputs: tuple[RequestTensor, ...]
    outputs: Mapping[str, SharedSlice] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def infer_request(
    model: str, inputs: Mapping[str, Array], specs: Sequence[TensorSpec]
) -> InferRequest:
    """The request that carries ``inputs`` (arrays by name) itself.

    Raises InputError for a name that is not in ``specs``, the inputs of the model.
    """
    by_name = {spec.name: spec for spec in specs}
    tensors = []
    for name, array in inputs.items():
        if name not in by_name:
            raise InputError(
                f"{name!r} is no input of the model (inputs: {', '.join(sorted(by_name))})."
            )
        datatype = by_name[name].datatype
        tensors.append(RequestTensor(name, datatype, array.shape, pack(array, datatype)))
    return InferRequest(model, tuple(tensors))
