"""Attention as one operator: whole heads are removed, from queries, keys, values and results."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from trimton.transforms.graph.edit import input_at
from trimton.transforms.prune.index_space import Indices
from trimton.transforms.prune.relations.relation import Relation
from trimton.transforms.prune.ties import Layer, Ties


def fused_attention(node: ir.Node, ties: Ties) -> None:
    """com.microsoft Attention: X [B, S, I], W [I, 3*H*d], bias [3*H*d] -> [B, S, H*d].

    Only the plain form: no past, no mask or bias of scores, one width for queries, keys, values.
    """
    heads = node.attributes.get_int("num_heads", 0) or 0
    data, weight, output = node.inputs[0], node.inputs[1], node.outputs[0]
    is_plain = not node.attributes.get_ints("qkv_hidden_sizes", None) and not any(node.inputs[4:])
    width = ties.size(output, 2)
    if not is_plain or not heads or width is None or ties.size(weight, 1) != 3 * width:
        ties.freeze_node(node, "this form of Attention is not followed")
        return
    for axis in range(2):
        ties.tie_axes(data, axis, output, axis)
    ties.tie_axes(data, 2, weight, 0)
    made = ties.indices(output, 2)
    _tie_heads(ties, made, heads)
    for value, axis in ((weight, 1), (input_at(node, 2), 0)):
        if value is not None:
            ties.tie(ties.indices(value, axis).reshape(3, -1), made)
    ties.freeze_value(input_at(node, 3), "it is a mask")
    if weight is not None and data is not None:
        ties.layers.append(Layer(node, weight, 1, 0, data, 2))


def multi_head_attention(node: ir.Node, ties: Ties) -> None:
    """com.microsoft MultiHeadAttention: Q, K, V [B, S, H*d], bias [3*H*d] -> [B, S, H*d]."""
    heads = node.attributes.get_int("num_heads", 0) or 0
    query, key, value = (input_at(node, index) for index in range(3))
    output = node.outputs[0]
    widths = {ties.size(v, 2) for v in (query, key, value, output) if ties.rank(v) == 3}
    is_plain = all(ties.rank(v) == 3 for v in (query, key, value)) and not any(node.inputs[4:])
    if not is_plain or not heads or len(widths) != 1 or len(node.outputs) > 1:
        ties.freeze_node(node, "this form of MultiHeadAttention is not followed")
        return
    _attend(ties, (query, key, value), output, heads)
    if (bias := input_at(node, 3)) is not None:
        ties.tie(ties.indices(bias, 0).reshape(3, -1), ties.indices(output, 2))


def attention(node: ir.Node, ties: Ties) -> None:
    """ONNX Attention on [B, S, H*d], as many heads for keys as for queries, without a cache."""
    heads = node.attributes.get_int("q_num_heads", 0) or 0
    query, key, value = (input_at(node, index) for index in range(3))
    output = node.outputs[0]
    widths = {ties.size(v, 2) for v in (query, key, value, output) if ties.rank(v) == 3}
    is_plain = (
        all(ties.rank(v) == 3 for v in (query, key, value))
        and heads == node.attributes.get_int("kv_num_heads", 0)
        and not any(node.inputs[3:])
        and not any(made.name for made in node.outputs[1:])
    )
    if not is_plain or not heads or len(widths) != 1:
        ties.freeze_node(node, "this form of Attention is not followed")
        return
    _attend(ties, (query, key, value), output, heads)


def _attend(ties: Ties, factors: tuple[ir.Value | None, ...], output: ir.Value, heads: int) -> None:
    query, key, value = factors
    made = ties.indices(output, 2)
    _tie_heads(ties, made, heads)
    for factor in factors:
        ties.tie_axes(factor, 2, output, 2)
        ties.tie_axes(factor, 0, output, 0)
    ties.tie_axes(query, 1, output, 1)
    for factor in (key, value):
        ties.freeze(ties.indices(factor, 1), "attention goes over it")


def _tie_heads(ties: Ties, indices: Indices, heads: int) -> None:
    by_head = indices.reshape(heads, -1) if indices.size % heads == 0 else indices.reshape(1, -1)
    ties.tie(by_head[:, 1:], by_head[:, :1])


RELATIONS: Mapping[tuple[str, str], Relation] = {
    ("", "Attention"): attention,
    ("com.microsoft", "Attention"): fused_attention,
    ("com.microsoft", "MultiHeadAttention"): multi_head_attention,
}
