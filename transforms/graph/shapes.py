"""Shapes of all values, inferred from the inputs and the weights alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from trimton.transforms.graph.tensors import all_nodes


def infer_shapes(model: ir.Model) -> None:
    """Set type and shape of every value between inputs and outputs, in place.

    Annotations in the file are dropped first, because they may be stale; only those of
    operators outside the standard, which nothing can infer, stay. Inputs and outputs of the
    model keep their declarations. A shape that cannot be inferred is None.
    """
    declared = [(v, v.type, v.shape) for v in (*model.graph.inputs, *model.graph.outputs)]
    _forget(model, keep={id(value) for value, _, _ in declared})
    _infer(model)
    for value, value_type, shape in declared:
        value.type = value_type
        value.shape = shape


def bind_free_dims(model: ir.Model, sizes: Mapping[str, int], default: int = 1) -> None:
    """Give every free dimension of the inputs a size (by its name, else ``default``), in place.

    All shapes are inferred again, those of the outputs too.
    """
    for value in model.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape(
                dim if isinstance(dim, int) else sizes.get(dim.value or "", default)
                for dim in value.shape
            )
    _forget(model, keep={id(value) for value in model.graph.inputs})
    _infer(model)


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of ``value`` where every dimension is known, else None."""
    dims = known_dims(value)
    if dims is None or any(dim is None for dim in dims):
        return None
    return tuple(dim for dim in dims if dim is not None)


def known_dims(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """The dimensions of ``value``, None for a free one; None where not even the rank is known."""
    if value is None:
        return None
    shape: Iterable[int | ir.SymbolicDim] | None = value.shape
    if shape is None and value.const_value is not None:
        shape = value.const_value.shape  # type: ignore[assignment]
    return None if shape is None else tuple(d if isinstance(d, int) else None for d in shape)


def _forget(model: ir.Model, keep: set[int]) -> None:
    for node in all_nodes(model):
        if node.domain:
            continue
        for output in node.outputs:
            if id(output) not in keep:
                output.shape = None


def _infer(model: ir.Model) -> None:
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
