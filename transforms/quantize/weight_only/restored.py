"""Weights stored as int8 that are float32 again once the model is loaded.

``w = Cast(integers) * scale`` with one scale for each output. Both nodes read constants only, so
ONNX Runtime computes them when it loads the model (it would leave a DequantizeLinear where it
is, to be computed at each run): layers without a kernel for integers take a quarter of the file
and run as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, Editor, constant, constant_array
from trimton.transforms.quantize.integer_rows import integer_rows
from trimton.transforms.quantize.products import name_of
from trimton.transforms.report import Skipped

# Fewer numbers than these weigh less than the two nodes and the scales that restoring adds.
_LEAST_NUMBERS = 1024
# Operator -> input -> the axes whose places have a scale of their own.
_AXES: Mapping[str, Mapping[int, tuple[int, ...]]] = {
    "Conv": {1: (0,)},
    "ConvTranspose": {1: (1,)},
    "GRU": {1: (0, 1), 2: (0, 1)},
    "LSTM": {1: (0, 1), 2: (0, 1)},
    "RNN": {1: (0, 1), 2: (0, 1)},
    # What exporters put between the weight of a recurrent layer and the layer.
    "Concat": dict.fromkeys(range(8), (0,)),
    "Slice": {0: (0,)},
    "Unsqueeze": {0: (0,)},
}


@dataclass(frozen=True)
class Restorable:
    """A float32 initializer; places along ``axes`` have a scale of their own."""

    value: ir.Value
    axes: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of the initializer."""
        return self.value.name or ""


@dataclass(frozen=True)
class Restored:
    """What was stored: the squared error of the weights of ``name``, and their squares."""

    name: str
    noise: float
    signal: float


def find_restorable(model: ir.Model) -> tuple[tuple[Restorable, ...], tuple[Skipped, ...]]:
    """The large weights of layers without a kernel for integers, in all graphs, and what is not.

    Weights that anything else reads are none of them and are not named.
    """
    found: list[Restorable] = []
    skipped: list[Skipped] = []
    for graph in model.graphs():
        for value in graph.initializers.values():
            axes = _axes(value)
            tensor = constant(value)
            if axes is None or tensor is None or tensor.dtype != ir.DataType.FLOAT:
                continue
            if tensor.size >= _LEAST_NUMBERS and len(tensor.shape) > max(axes):
                found.append(Restorable(value, axes))
            elif len(tensor.shape) > 1:
                readers = ", ".join(name_of(node) for node, _ in value.uses())
                why = f"its weight is small (fewer than {_LEAST_NUMBERS} numbers)"
                skipped.append(Skipped(readers, why))
    return tuple(found), tuple(skipped)


def write_restored(weight: Restorable, editor: Editor) -> Restored:
    """Store ``weight`` as integers, in place."""
    value, graph = weight.value, weight.value.graph
    array = constant_array(value)
    if array is None or not isinstance(graph, ir.Graph):
        raise ValueError(f"{weight.name} is no constant of a graph")
    moved = np.moveaxis(array, weight.axes, range(len(weight.axes)))
    rows = moved.reshape(int(np.prod(moved.shape[: len(weight.axes)])), -1)
    encoded = integer_rows(np.ascontiguousarray(rows), per_channel=True, saturates=False)
    integers = _back(encoded.integers.reshape(moved.shape), weight)
    ones = (1,) * (array.ndim - len(weight.axes))
    scale = _back(encoded.scale.reshape(*moved.shape[: len(weight.axes)], *ones), weight)
    stored = editor.add_constant(graph, f"{weight.name}_quantized", integers)
    scales = editor.add_constant(graph, f"{weight.name}_scale", scale)
    to = ir.AttrInt64("to", ir.DataType.FLOAT)
    cast = ir.Node("", "Cast", [stored], [to], num_outputs=1)
    product = ir.Node("", "Mul", [cast.outputs[0], scales], num_outputs=1)
    for node, hint in ((cast, "floats"), (product, "restored")):
        node.name = node.outputs[0].name = editor.fresh_name(f"{weight.name}_{hint}")
        node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
    graph.insert_before(graph[0], [cast, product])
    value.replace_all_uses_with(product.outputs[0])
    error = encoded.dequantised() - rows
    return Restored(weight.name, _squares(error), _squares(rows))


def _axes(value: ir.Value) -> tuple[int, ...] | None:
    """The axes with scales of their own that all readers of ``value`` agree on."""
    uses = tuple(value.uses())
    if not uses or value.is_graph_output():
        return None
    known = {
        None if node.domain else _AXES.get(node.op_type, {}).get(index) for node, index in uses
    }
    return known.pop() if len(known) == 1 else None


def _back(moved: Array, weight: Restorable) -> Array:
    back: Array = np.moveaxis(moved, range(len(weight.axes)), weight.axes)
    return np.ascontiguousarray(back)


def _squares(array: Array) -> float:
    return float(np.square(array, dtype=np.float64).sum())
