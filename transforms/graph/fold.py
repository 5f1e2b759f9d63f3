"""Folding: a node whose outputs are the same in every run is replaced by them.

``Shape`` and ``Size``, and what picks from them, need no constant input, only known dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trimton.transforms.graph.edit import (
    Editor,
    constant,
    constant_array,
    erase,
    input_at,
    only_consumer,
    replace_value,
)
from trimton.transforms.graph.evaluate import can_evaluate, evaluate
from trimton.transforms.graph.load import one_line
from trimton.transforms.graph.probe import RANDOM_OPERATORS
from trimton.transforms.graph.quantised import is_quantised
from trimton.transforms.graph.session import ORT_ERRORS
from trimton.transforms.graph.shapes import known_dims, static_shape
from trimton.transforms.graph.tensors import all_nodes, subgraphs_of

Array = npt.NDArray[Any]

# How much larger one folded node may make the model. ONNX Runtime folds at loading anyway:
# a file need not carry a large tensor that a small node can make.
MAX_GROWTH_BYTES = 16 * 1024
_SMALL_BYTES = 1024


def fold_node(node: ir.Node, editor: Editor) -> bool | str:
    """Replace ``node`` by its value: True if done, a reason if only nearly possible.

    False where its value depends on the inputs of the model.
    """
    graph = node.graph
    if graph is None or node.domain or node.op_type == "Constant" or subgraphs_of(node):
        return False
    shape_value = _shape_value(node, editor)
    if shape_value is None and not _has_constant_inputs(node):
        return False
    if reason := _obstacle(node):
        return reason
    if shape_value is not None:
        arrays: list[Array] = [shape_value]
    else:
        try:
            arrays = evaluate(node, editor.model)
        except ORT_ERRORS as error:
            return f"it cannot be evaluated alone ({one_line(str(error))})"
        if reason := _too_large(node, sum(array.nbytes for array in arrays)):
            return reason
    outputs = [output for output in node.outputs if output.name]
    for output, array in zip(outputs, arrays, strict=True):
        name = output.name or node.op_type
        replace_value(output, editor.add_constant(graph, f"{name}_folded", array))
    erase(node)
    return True


def fold_small(model: ir.Model) -> int:
    """Fold everything that reads only small constants, in place: the arithmetic of shapes.

    Returns the number of nodes folded.
    """
    editor = Editor(model)
    count = 0
    for node in list(all_nodes(model)):
        constants = (constant(value) for value in node.inputs)
        if all(tensor is None or tensor.nbytes <= _SMALL_BYTES for tensor in constants):
            count += fold_node(node, editor) is True
    return count


def _has_constant_inputs(node: ir.Node) -> bool:
    inputs = [value for value in node.inputs if value is not None]
    return bool(inputs) and all(constant(value) is not None for value in inputs)


def _obstacle(node: ir.Node) -> str | None:
    if node.op_type in RANDOM_OPERATORS:
        return "its value is random"
    if is_quantised(node):
        return "quantisation is left as it is"
    if any(output.is_graph_output() for output in node.outputs):
        return "its value is an output of a graph"
    if any(isinstance(v.type, (ir.SequenceType, ir.OptionalType)) for v in node.outputs):
        return "its value is no tensor"
    if not can_evaluate(node):
        return "its type has no counterpart in numpy"
    sizes = [_predicted_bytes(output) for output in node.outputs]
    return _too_large(node, sum(size for size in sizes if size is not None))


def _predicted_bytes(value: ir.Value) -> int | None:
    shape = static_shape(value)
    if shape is None or value.dtype is None or value.dtype == ir.DataType.STRING:
        return None
    return int(np.prod(shape, dtype=np.int64)) * value.dtype.bitwidth // 8


def _too_large(node: ir.Node, size_bytes: int) -> str | None:
    """Why a value of ``size_bytes`` cannot stand for ``node``; None if it can."""
    inputs = {id(value): constant(value) for value in node.inputs if value is not None}
    growth = size_bytes - _freed_bytes(node)
    if growth <= MAX_GROWTH_BYTES:
        return None
    # A part of a weight that only goes into the next constant will be gone by then.
    is_part = size_bytes <= sum(tensor.nbytes for tensor in inputs.values() if tensor is not None)
    if is_part and all(_goes_into_constants(output, node) for output in node.outputs):
        return None
    return f"its value would make the model {growth} bytes larger"


def _goes_into_constants(value: ir.Value, maker: ir.Node) -> bool:
    """Whether all that reads ``value`` is constant, too, once ``value`` is."""
    return not value.is_graph_output() and all(
        user.graph is maker.graph and all(_is_constant_or(value, i) for i in user.inputs)
        for user, _ in value.uses()
    )


def _is_constant_or(known: ir.Value, value: ir.Value | None) -> bool:
    if value is None or value is known or constant(value) is not None:
        return True
    producer = value.producer()
    return producer is not None and _has_constant_inputs(producer)


def _freed_bytes(node: ir.Node) -> int:
    """The bytes of the constants that only ``node`` reads: they go with it."""
    tensors = {id(v): constant(v) for v in node.inputs if v is not None and only_consumer(v)}
    return sum(tensor.nbytes for tensor in tensors.values() if tensor is not None)


def _shape_value(node: ir.Node, editor: Editor) -> Array | None:
    """The value of a node that only asks for known dimensions, as int64; else None."""
    match node.op_type:
        case "Shape":
            dims = _shape_output(node)
        case "Size":
            shape = static_shape(input_at(node, 0))
            return None if shape is None else np.asarray(np.prod(shape, dtype=np.int64))
        case "Gather" | "Slice":
            dims = _picked_dims(node, editor)
        case _:
            return None
    if dims is None or any(dim is None for dim in dims.reshape(-1)):
        return None
    return dims.astype(np.int64)


def _shape_output(node: ir.Node) -> Array | None:
    """The output of a Shape node, as objects: None stands for a free dimension."""
    dims = known_dims(input_at(node, 0))
    if dims is None:
        return None
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
    return np.array(dims, dtype=object)[start:end]


def _picked_dims(node: ir.Node, editor: Editor) -> Array | None:
    """The dimensions that Gather or Slice picks from a Shape, where it picks known ones."""
    source = input_at(node, 0)
    producer = None if source is None else source.producer()
    if producer is None or producer.op_type != "Shape" or producer.domain:
        return None
    dims = _shape_output(producer)
    if dims is None:
        return None
    if node.op_type == "Gather":
        indices = constant_array(input_at(node, 1))
        if indices is None or np.any((indices < -len(dims)) | (indices >= len(dims))):
            return None
        return np.asarray(dims[indices], dtype=object)
    if editor.opset < 10:  # starts and ends are attributes
        return None
    bounds = [constant_array(input_at(node, index)) for index in (1, 2)]
    steps = constant_array(input_at(node, 4)) if input_at(node, 4) is not None else np.ones(1)
    if any(bound is None for bound in bounds) or steps is None or int(steps[0]) != 1:
        return None
    start, end = (int(bound[0]) for bound in bounds if bound is not None)
    return dims[start:end]
