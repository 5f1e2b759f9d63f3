"""The interface of a model: names, types and shapes of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from trimton.core.errors import UnsupportedModelError


@dataclass(frozen=True)
class InputSpec:
    """One input of a model: ``shape`` has None for a free dimension, axis 0 is the batch.

    ``optional`` inputs have a default in the model (IR version 3 lists weights as inputs).
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    optional: bool = False


@dataclass(frozen=True)
class OutputSpec:
    """One output of a model: ``shape`` has None for a free dimension."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]


def input_specs(model: ir.Model) -> tuple[InputSpec, ...]:
    """The inputs of ``model`` in its order; strings have dtype object.

    Raises UnsupportedModelError for an input that is no tensor or has no rank.
    """
    return tuple(
        InputSpec(value.name or "", *_tensor(value, "input"), optional=value.is_initializer())
        for value in model.graph.inputs
    )


def output_specs(model: ir.Model) -> tuple[OutputSpec, ...]:
    """The outputs of ``model`` in its order; raises as input_specs does."""
    return tuple(
        OutputSpec(value.name or "", *_tensor(value, "output")) for value in model.graph.outputs
    )


def interface(model: ir.Model) -> tuple[str, ...]:
    """The whole interface as text, one line a value: what a transform must not change."""
    return (*_lines("input", model.graph.inputs), *_lines("output", model.graph.outputs))


def _lines(role: str, values: Iterable[ir.Value]) -> Iterable[str]:
    for value in values:
        yield f"{role} {value.name} {value.type} {value.shape}"


def _tensor(value: ir.Value, role: str) -> tuple[np.dtype[Any], tuple[int | None, ...]]:
    if not isinstance(value.type, ir.TensorType):
        raise UnsupportedModelError(
            f"{role} {value.name!r} of the model is no tensor but {value.type}; "
            f"only tensors can be served."
        )
    if value.shape is None:
        raise UnsupportedModelError(
            f"{role} {value.name!r} of the model has no declared rank; export it with a shape."
        )
    shape = tuple(dim if isinstance(dim, int) else None for dim in value.shape)
    return _numpy_dtype(value.type.dtype), shape


def tensor_type(value: ir.Value) -> np.dtype[Any] | None:
    """The element type of ``value`` (object for strings); None where it is no tensor."""
    return _numpy_dtype(value.type.dtype) if isinstance(value.type, ir.TensorType) else None


def is_native(dtype: np.dtype[Any]) -> bool:
    """Whether numpy itself has this type: bfloat16 and those below 8 bits are add-ons."""
    return dtype.kind in "biufO" and dtype.isbuiltin == 1


def _numpy_dtype(dtype: ir.DataType) -> np.dtype[Any]:
    return np.dtype(object) if dtype == ir.DataType.STRING else np.dtype(dtype.numpy())
