"""Shapes of all values, inferred from the inputs and the weights alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import onnx_ir as ir
from onnx import shape_inference

from trimton.transforms.graph.shape_stand_ins import use_stand_ins
from trimton.transforms.graph.tensors import all_nodes

_SMALL_BYTES = 1024


def infer_shapes(model: ir.Model) -> None:
    """Set type and shape of every value that a node makes, in place.

    What the file says of them is dropped first, because it may be stale, even for outputs of
    the model (see restored_declarations); only the values of operators outside the standard keep
    it, where nothing can infer them (see shape_stand_ins). A shape that cannot be inferred is None.
    """
    for value in _subgraph_inputs(model):  # what a loop carries may change its shape as it runs
        value.shape = None
    _forget(model)
    _infer(model)


@contextlib.contextmanager
def restored_declarations(model: ir.Model) -> Iterator[None]:
    """Give outputs of ``model`` and inputs of loop bodies their declarations back afterwards."""
    outputs = [(value.type, value.shape) for value in model.graph.outputs]
    carried = [(value, value.shape) for value in _subgraph_inputs(model)]
    yield
    for value, (value_type, shape) in zip(model.graph.outputs, outputs, strict=True):
        value.type, value.shape = value_type, shape
    for value, shape in carried:
        value.shape = shape


def bind_free_dims(model: ir.Model, sizes: Mapping[str, int], default: int = 1) -> None:
    """Give every free dimension of the inputs a size (by its name, else ``default``), in place.

    All shapes are inferred again, those of the outputs too; a loop's own declarations count.
    """
    for value in model.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape(
                dim if isinstance(dim, int) else sizes.get(dim.value or "", default)
                for dim in value.shape
            )
    _forget(model)
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


def _subgraph_inputs(model: ir.Model) -> list[ir.Value]:
    return [v for graph in model.graphs() if graph is not model.graph for v in graph.inputs]


def _forget(model: ir.Model) -> None:
    for node in all_nodes(model):
        if not node.domain:
            for output in node.outputs:
                output.shape = None


def _infer(model: ir.Model) -> None:
    """Have ONNX infer the shapes of a copy without its weights, and take them over."""
    skeleton = _without_large_weights(model)
    use_stand_ins(skeleton)
    inferred = ir.serde.deserialize_model(
        shape_inference.infer_shapes(
            ir.serde.serialize_model(skeleton), check_type=False, strict_mode=False, data_prop=True
        )
    )
    for node, known in zip(all_nodes(model), all_nodes(inferred), strict=True):
        for output, found in zip(node.outputs, known.outputs, strict=True):
            output.type = found.type if found.type is not None else output.type
            output.shape = found.shape if found.shape is not None else output.shape


def _without_large_weights(model: ir.Model) -> ir.Model:
    """A copy whose large weights are inputs: inference needs their shapes, not their values.

    A model of any size fits into one message then. Small constants stay, they may be shapes.
    """
    skeleton = model.clone()
    for graph in list(skeleton.graphs()):
        for name, value in list(graph.initializers.items()):
            tensor = value.const_value
            if tensor is None or tensor.nbytes <= _SMALL_BYTES or value.is_graph_input():
                continue
            del graph.initializers[name]
            value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
            if graph is not skeleton.graph:  # weights of sibling branches may share a name
                value.name = f"{name}/{len(skeleton.graph.inputs)}"
            skeleton.graph.inputs.append(value)
    return skeleton
