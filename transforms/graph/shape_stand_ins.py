"""Operators of ONNX Runtime as standard ones of the same shapes, so that ONNX can infer these."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from trimton.transforms.graph.edit import input_at

_DOMAIN = "com.microsoft"
_LSTM_INPUTS = 8


def use_stand_ins(skeleton: ir.Model) -> None:
    """Replace nodes of ``skeleton``, in place and one for one; weights become inputs of it."""
    for node in ir.traversal.RecursiveGraphIterator(skeleton.graph):
        rule = _RULES.get(node.op_type) if node.domain == _DOMAIN else None
        if rule is not None:
            rule(node, skeleton)


def _product(node: ir.Node, skeleton: ir.Model) -> None:
    """MatMulNBits: a MatMul with a matrix [K, N]."""
    sizes = (node.attributes.get_int("K", 0) or 0, node.attributes.get_int("N", 0) or 0)
    rows, dtype = node.inputs[0], ir.DataType.FLOAT
    if rows is not None and rows.dtype is not None:
        dtype = rows.dtype
    _become(node, "MatMul", [rows, _matrix(skeleton, sizes, dtype)])


def _table(node: ir.Node, skeleton: ir.Model) -> None:
    """GatherBlockQuantized of bytes: a Gather of a table of rows and columns."""
    data, scales = input_at(node, 0), input_at(node, 2)
    if data is None or scales is None or data.shape is None or len(data.shape) != 2:
        return
    rows, width = data.shape
    bits = node.attributes.get_int("bits", 4) or 4
    if isinstance(rows, int) and isinstance(width, int) and data.dtype == ir.DataType.UINT8:
        table = _matrix(skeleton, (rows, width * 8 // bits), scales.dtype or ir.DataType.FLOAT)
        _become(node, "Gather", [table, node.inputs[1]])


def _lstm(node: ir.Node, skeleton: ir.Model) -> None:
    """DynamicQuantizeLSTM: an LSTM without the scales and zero points behind its inputs."""
    node.domain, node.op_type = "", "LSTM"
    node.resize_inputs(_LSTM_INPUTS)


_RULES: Mapping[str, Callable[[ir.Node, ir.Model], None]] = {
    "DynamicQuantizeLSTM": _lstm,
    "GatherBlockQuantized": _table,
    "MatMulNBits": _product,
}


def _become(node: ir.Node, op_type: str, inputs: list[ir.Value | None]) -> None:
    node.domain, node.op_type = "", op_type
    node.attributes.clear()
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)


def _matrix(skeleton: ir.Model, sizes: tuple[int, int], dtype: ir.DataType) -> ir.Value:
    value = ir.Value(
        name=f"stand_in/{len(skeleton.graph.inputs)}",
        type=ir.TensorType(dtype),
        shape=ir.Shape(sizes),
    )
    skeleton.graph.inputs.append(value)
    return value
