"""QuantizeLinear and DequantizeLinear nodes, and the scales and zero points that they read."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Editor
from trimton.transforms.quantize.encoding import Encoding

_SUFFIXES = {
    "DequantizeLinear": "dequantized",
    "Mul": "scaled",
    "QuantizeLinear": "quantized",
}


class QdqNodes:
    """Makes nodes for ``graph``, which is edited with ``editor``; constants are shared."""

    def __init__(self, graph: ir.Graph, editor: Editor) -> None:
        self._graph, self._editor = graph, editor
        self._parameters: dict[int, tuple[ir.Value, ir.Value]] = {}
        self._zeros: dict[tuple[ir.DataType, int], ir.Value] = {}

    def parameters(self, name: str, encoding: Encoding) -> tuple[ir.Value, ir.Value]:
        """The constants of ``encoding``; those who share it share them.

        Layers with as many channels share their zero points, which are zeros: together those would
        take as much room as the biases.
        """
        if id(encoding) not in self._parameters:
            scale = np.asarray(encoding.scale, np.float32)
            self._parameters[id(encoding)] = (
                self._editor.add_constant(self._graph, f"{name}_scale", scale),
                self._zero_point(name, encoding),
            )
        return self._parameters[id(encoding)]

    def _zero_point(self, name: str, encoding: Encoding) -> ir.Value:
        array = np.asarray(encoding.zero_point, encoding.dtype.numpy())
        is_zeros = array.ndim > 0 and not array.any()
        key = (encoding.dtype, array.size)
        if is_zeros and key in self._zeros:
            return self._zeros[key]
        value = self._editor.add_constant(self._graph, f"{name}_zero_point", array)
        if is_zeros:
            self._zeros[key] = value
        return value

    def rows(self, name: str, integers: ir.Value, encoding: Encoding) -> list[ir.Node]:
        """Nodes, in no graph yet, that make floats of ``integers``, rows of table ``name``.

        The last one makes them. Scales of columns multiply afterwards: for a scale that changes
        from number to number DequantizeLinear has no vectorised kernel, for a single one it has.
        """
        if encoding.axis is None:
            inputs = [integers, *self.parameters(name, encoding)]
            floats = self.node("DequantizeLinear", name, inputs, ir.DataType.FLOAT)
            floats.shape = integers.shape
            return [producer_of(floats)]
        one = Encoding(
            encoding.dtype, np.ones((), np.float32), np.zeros((), encoding.dtype.numpy())
        )
        (numbers,) = self.rows(f"{name}_numbers", integers, one)
        scale = encoding.scale.astype(np.float32)
        columns = self._editor.add_constant(self._graph, f"{name}_scale", scale)
        scaled = self.node("Mul", name, [numbers.outputs[0], columns], ir.DataType.FLOAT)
        scaled.shape = integers.shape
        return [numbers, producer_of(scaled)]

    def node(
        self,
        op_type: str,
        name: str,
        inputs: list[ir.Value],
        dtype: ir.DataType,
        axis: int | None = None,
    ) -> ir.Value:
        """The output of a new node, which is in no graph yet."""
        suffix = _SUFFIXES[op_type]
        output = ir.Value(
            name=self._editor.fresh_name(f"{name}_{suffix}"), type=ir.TensorType(dtype)
        )
        attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
        label = self._editor.fresh_name(f"{name}_{op_type}")
        ir.Node("", op_type, inputs, attributes, outputs=[output], name=label)
        return output


def producer_of(value: ir.Value) -> ir.Node:
    """The node that makes ``value``; raises ValueError where there is none."""
    node = value.producer()
    if node is None:
        raise ValueError(f"{value.name} is made by no node")
    return node
