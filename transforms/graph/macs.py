"""Multiply-accumulates of one node, from the shapes of its values: one rule per operator.

Only contractions count (convolutions, matrix products, recurrences, attention); elementwise
work is left out, as is usual. Every rule returns None where a shape it needs is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import onnx_ir as ir

from trimton.transforms.graph.shapes import static_shape

MacRule = Callable[[ir.Node], int | None]


def node_macs(node: ir.Node) -> int | None:
    """The multiply-accumulates of ``node`` itself: 0 for one that contracts nothing."""
    rule = RULES.get(node.op_type)
    return 0 if rule is None else rule(node)


def _input_shape(node: ir.Node, index: int) -> tuple[int, ...] | None:
    return static_shape(node.inputs[index]) if index < len(node.inputs) else None


def _convolution(w: int) -> MacRule:
    """Each output element sums over W[1:], the kernel and the input channels of one group."""

    def rule(node: ir.Node) -> int | None:
        output, weight = static_shape(node.outputs[0]), _input_shape(node, w)
        return None if output is None or weight is None else prod(output) * prod(weight[1:])

    return rule


def _conv_transpose(node: ir.Node) -> int | None:
    """Each input element is spread over W[1:], the kernel and the output channels of a group."""
    data, weight = _input_shape(node, 0), _input_shape(node, 1)
    return None if data is None or weight is None else prod(data) * prod(weight[1:])


def _product(node: ir.Node) -> int | None:
    """Each output element of a matrix product sums over the last axis of the first input."""
    output, left = static_shape(node.outputs[0]), _input_shape(node, 0)
    return None if output is None or not left else prod(output) * left[-1]


def _gemm(node: ir.Node) -> int | None:
    output, left = static_shape(node.outputs[0]), _input_shape(node, 0)
    if output is None or left is None or len(left) != 2:
        return None
    is_transposed = node.attributes.get_int("transA", 0)
    return prod(output) * left[0 if is_transposed else 1]


def _fused_matmul(node: ir.Node) -> int | None:
    output, left = static_shape(node.outputs[0]), _input_shape(node, 0)
    if output is None or left is None or len(left) < 2:
        return None
    return prod(output) * left[-2 if node.attributes.get_int("transA", 0) else -1]


def _matmul_nbits(node: ir.Node) -> int | None:
    output = static_shape(node.outputs[0])
    return None if output is None else prod(output) * (node.attributes.get_int("K", 0) or 0)


def _recurrent(node: ir.Node) -> int | None:
    """Each step multiplies the input by W [directions, gates*H, I] and the state by R."""
    data, weight, state = (_input_shape(node, index) for index in (0, 1, 2))
    if data is None or weight is None or state is None or len(data) != 3:
        return None
    return data[0] * data[1] * (prod(weight) + prod(state))


def _einsum(node: ir.Node) -> int | None:
    """The product of all index sizes; a single operand contracts nothing."""
    if len(node.inputs) < 2:
        return 0
    equation = (node.attributes.get_string("equation", "") or "").replace(" ", "")
    terms = equation.split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        shape = _input_shape(node, index)
        if shape is None or len(shape) != len(term):
            return None
        for letter, size in zip(term, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return prod(sizes.values())


def _attention(node: ir.Node) -> int | None:
    """ONNX Attention: scores Q K^T and their product with V, for each head."""
    query, key, value = (_input_shape(node, index) for index in (0, 1, 2))
    if query is None or key is None or value is None or not len(query) == len(key) == len(value):
        return None
    if len(query) == 4:
        batch, heads, rows, depth = query
        return batch * heads * rows * key[2] * (depth + value[3])
    query_heads = node.attributes.get_int("q_num_heads", 1) or 1
    key_heads = node.attributes.get_int("kv_num_heads", query_heads) or query_heads
    batch, rows, width = query
    return batch * rows * key[1] * (width + value[2] * query_heads // key_heads)


def _fused_attention(node: ir.Node) -> int | None:
    """com.microsoft Attention: the projections by one weight [I, 3H], then as above."""
    data, weight = _input_shape(node, 0), _input_shape(node, 1)
    if data is None or weight is None or len(data) != 3 or len(weight) != 2:
        return None
    batch, rows, _ = data
    hidden = weight[1] // 3
    return batch * rows * prod(weight) + 2 * batch * rows * rows * hidden


RULES: Mapping[str, MacRule] = {
    "Attention": lambda node: _fused_attention(node) if node.domain else _attention(node),
    "Conv": _convolution(w=1),
    "ConvInteger": _convolution(w=1),
    "ConvTranspose": _conv_transpose,
    "DeformConv": _convolution(w=1),
    "DynamicQuantizeLSTM": _recurrent,
    "DynamicQuantizeMatMul": _product,
    "Einsum": _einsum,
    "FusedConv": _convolution(w=1),
    "FusedGemm": _gemm,
    "FusedMatMul": _fused_matmul,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "MatMul": _product,
    "MatMulInteger": _product,
    "MatMulIntegerToFloat": _product,
    "MatMulNBits": _matmul_nbits,
    "MultiHeadAttention": _attention,
    "QAttention": _fused_attention,
    "QGemm": _gemm,
    "QLinearConv": _convolution(w=3),
    "QLinearMatMul": _product,
    "RNN": _recurrent,
}
