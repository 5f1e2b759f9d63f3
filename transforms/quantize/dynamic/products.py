"""A product of rows and a constant matrix, computed in integers with scales of the moment.

``x -> DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul`` by both scales, then the bias. All
of it is standard ONNX; ONNX Runtime fuses it into one kernel. What several products read is
quantised once.

Source: ONNX operators DynamicQuantizeLinear (operator set 11) and MatMulInteger (10).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Editor, replace_value
from trimton.transforms.quantize.integer_rows import IntegerRows
from trimton.transforms.quantize.products import Product

_Quantised = tuple[ir.Value, ir.Value, ir.Value]


class ProductWriter:
    """Replaces products of the model of ``editor``, in place, in the order of their graphs."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._quantised: dict[tuple[ir.Value, ir.Graph], _Quantised] = {}
        self._weights: dict[tuple[ir.Value, bool, float], tuple[ir.Value, ir.Value, ir.Value]] = {}

    def write(self, product: Product, rows: IntegerRows) -> None:
        """Compute ``product`` with ``rows`` in place of its weight."""
        node, graph = product.node, product.node.graph
        if not isinstance(graph, ir.Graph) or node.inputs[0] is None:
            raise ValueError(f"{product.name} reads nothing")
        integers, scale, zero_point = self._quantise(node.inputs[0], node, graph)
        weight, weight_scale, weight_zero_point = self._weight(product, rows, graph)
        sums = self._add(
            node,
            "MatMulInteger",
            [integers, weight, zero_point, weight_zero_point],
            f"{product.name}_sums",
            ir.DataType.INT32,
        )
        to = ir.AttrInt64("to", ir.DataType.FLOAT)
        floats = self._add(node, "Cast", [sums], f"{product.name}_floats", attributes=[to])
        steps = self._add(node, "Mul", [scale, weight_scale], f"{product.name}_step")
        result = self._add(node, "Mul", [floats, steps], f"{product.name}_product")
        if product.bias is not None:
            bias = self._editor.add_constant(graph, f"{product.name}_bias", product.bias)
            result = self._add(node, "Add", [result, bias], f"{product.name}_sum")
        old = node.outputs[0]
        if not old.is_graph_output():
            result.name = old.name
        result.type, result.shape = old.type, old.shape
        replace_value(old, result)
        graph.remove(node, safe=True)

    def _quantise(self, value: ir.Value, node: ir.Node, graph: ir.Graph) -> _Quantised:
        """``value`` as uint8 with scale and zero point, once in each graph that reads it."""
        key = value, graph
        if key not in self._quantised:
            hint = value.name or node.name or ""
            made = ir.Node(
                "",
                "DynamicQuantizeLinear",
                [value],
                num_outputs=3,
                name=self._editor.fresh_name(f"{hint}_dynamic"),
            )
            types = (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8)
            parts = ("quantized", "scale", "zero_point")
            for output, part, dtype in zip(made.outputs, parts, types, strict=True):
                output.name = self._editor.fresh_name(f"{hint}_{part}")
                output.type = ir.TensorType(dtype)
            graph.insert_before(node, made)
            integers, scale, zero_point = made.outputs
            self._quantised[key] = integers, scale, zero_point
        return self._quantised[key]

    def _weight(self, product: Product, rows: IntegerRows, graph: ir.Graph) -> _Quantised:
        key = product.weight, product.is_transposed, product.factor
        if key not in self._weights:
            hint = product.weight.name or product.name
            home = product.weight.graph if isinstance(product.weight.graph, ir.Graph) else graph
            zero_point = np.zeros(rows.scale.shape, np.int8)
            self._weights[key] = (
                self._editor.add_constant(home, f"{hint}_quantized", rows.integers.T),
                self._editor.add_constant(home, f"{hint}_scale", rows.scale),
                self._editor.add_constant(home, f"{hint}_zero_point", zero_point),
            )
        return self._weights[key]

    def _add(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value],
        hint: str,
        dtype: ir.DataType = ir.DataType.FLOAT,
        attributes: Sequence[ir.Attr] = (),
    ) -> ir.Value:
        name = self._editor.fresh_name(hint)
        made = ir.Node("", op_type, inputs, attributes, num_outputs=1, name=name)
        output = made.outputs[0]
        output.name, output.type = name, ir.TensorType(dtype)
        if isinstance(before.graph, ir.Graph):
            before.graph.insert_before(before, made)
        return output
