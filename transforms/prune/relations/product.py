"""Matrix products: rows and columns are passed on, the contracted axes are tied.

Where both factors depend on the model's inputs (attention scores), the contracted axis is kept:
no weight reads it, so nothing guarantees that a removed index added nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from trimton.transforms.graph.edit import input_at
from trimton.transforms.prune.relations.relation import Relation
from trimton.transforms.prune.ties import Layer, Ties

_TWO_ACTIVATIONS = "two activations are multiplied along it"


def matmul(node: ir.Node, ties: Ties) -> None:
    """MatMul: [..., M, K] x [..., K, N] -> [..., M, N], batch axes broadcast."""
    _product(node, ties, left=(-2, -1), right=(-2, -1))


def fused_matmul(node: ir.Node, ties: Ties) -> None:
    """com.microsoft FusedMatMul: a MatMul that may read its factors transposed."""
    if any(node.attributes.get_int(f"transBatch{side}", 0) for side in "AB"):
        ties.freeze_node(node, "FusedMatMul transposes its batch")
        return
    _product(node, ties, _order(node, "transA"), _order(node, "transB"))


def _order(node: ir.Node, attribute: str) -> tuple[int, int]:
    return (-1, -2) if node.attributes.get_int(attribute, 0) else (-2, -1)


def _product(node: ir.Node, ties: Ties, left: tuple[int, int], right: tuple[int, int]) -> None:
    """``left`` are the axes (M, K) of the first factor, ``right`` (K, N) of the second."""
    a, b, output = node.inputs[0], node.inputs[1], node.outputs[0]
    if a is None or b is None or min(ties.rank(a), ties.rank(b)) < 2:
        ties.freeze_node(node, "a vector takes part in a matrix product")
        return
    ties.tie_axes(a, left[0], output, -2)
    ties.tie_axes(a, left[1], b, right[0])
    ties.tie_axes(b, right[1], output, -1)
    for factor in (a, b):
        for back in range(3, ties.rank(factor) + 1):
            if ties.size(factor, -back) != 1 or ties.size(output, -back) == 1:
                ties.tie_axes(factor, -back, output, -back)
    if ties.is_constant(b):
        rank = ties.rank(b)
        axis = ties.rank(a) + left[1]
        ties.layers.append(Layer(node, b, rank + right[1], rank + right[0], a, axis))
    elif ties.is_constant(a):
        rank = ties.rank(a)
        axis = ties.rank(b) + right[0]
        ties.layers.append(Layer(node, a, rank + left[0], rank + left[1], b, axis))
    else:
        ties.freeze(ties.indices(a, left[1]), _TWO_ACTIVATIONS)


def gemm(node: ir.Node, ties: Ties) -> None:
    """Gemm: a matrix product with transposition flags, and a sum that is broadcast."""
    _product(node, ties, _order(node, "transA"), _order(node, "transB"))
    if (added := input_at(node, 2)) is not None:
        ties.broadcast(added, node.outputs[0])


def einsum(node: ir.Node, ties: Ties) -> None:
    """Einsum without ellipsis and diagonals: axes of one letter are tied."""
    equation = (node.attributes.get_string("equation", "") or "").replace(" ", "")
    terms, arrow, result = equation.partition("->")
    operands = terms.split(",")
    if not arrow or "." in equation or any(len(set(t)) < len(t) for t in (*operands, result)):
        ties.freeze_node(node, f"the equation {equation!r} is not plain")
        return
    values = [*node.inputs, node.outputs[0]]
    first: dict[str, tuple[ir.Value | None, int]] = {}
    for term, value in zip((*operands, result), values, strict=True):
        for axis, letter in enumerate(term):
            other, other_axis = first.setdefault(letter, (value, axis))
            if other is not value:
                ties.tie_axes(other, other_axis, value, axis)
    _einsum_contractions(node, ties, operands, result)


def _einsum_contractions(node: ir.Node, ties: Ties, operands: list[str], result: str) -> None:
    weights = [n for n, value in enumerate(node.inputs) if ties.is_constant(value)]
    weight = weights[0] if len(weights) == 1 and len(operands) == 2 else None
    for number, term in enumerate(operands):
        for axis, letter in enumerate(term):
            readers = [other for other in operands if letter in other]
            if letter not in result and (weight is None or len(readers) < 2):
                ties.freeze(ties.indices(node.inputs[number], axis), _TWO_ACTIVATIONS)
    if weight is None:
        return
    term, data = operands[weight], operands[1 - weight]
    value, activation = node.inputs[weight], node.inputs[1 - weight]
    made = [axis for axis, letter in enumerate(term) if letter not in data]
    read = [axis for axis, letter in enumerate(term) if letter not in result and letter in data]
    if made and read and value is not None and activation is not None:
        axis = data.index(term[read[0]])
        ties.layers.append(Layer(node, value, made[0], read[0], activation, axis))


RELATIONS: Mapping[tuple[str, str], Relation] = {
    ("", "Einsum"): einsum,
    ("", "Gemm"): gemm,
    ("", "MatMul"): matmul,
    ("com.microsoft", "FusedGemm"): gemm,
    ("com.microsoft", "FusedMatMul"): fused_matmul,
}
