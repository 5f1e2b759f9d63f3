"""Operators that look along an axis: it is kept, the others are passed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from trimton.transforms.graph.edit import constant_array, input_at
from trimton.transforms.prune.relations.convolution import SPATIAL
from trimton.transforms.prune.relations.relation import Relation
from trimton.transforms.prune.relations.statistics import is_statistic
from trimton.transforms.prune.ties import Ties


def reduce(node: ir.Node, ties: Ties) -> None:
    """Reduce*, and ArgMax, ArgMin: axes from an attribute or from the second input."""
    rank = ties.rank(node.inputs[0])
    axes = reduced_axes(node, rank)
    if axes is None:
        ties.freeze_node(node, "the axes to reduce are computed")
        return
    _reduce_over(node, ties, axes)
    ties.freeze_value(input_at(node, 1), "it lists axes")


def reduced_axes(node: ir.Node, rank: int) -> Sequence[int] | None:
    """The reduced axes, from 0 on; None where they are computed."""
    if node.op_type.startswith("Arg"):
        return [(node.attributes.get_int("axis", 0) or 0) % rank]
    given = node.attributes.get_ints("axes", None)
    if given is None and input_at(node, 1) is not None:
        array = constant_array(node.inputs[1])
        if array is None:
            return None
        given = [int(axis) for axis in array.reshape(-1)]
    if not given:
        return [] if node.attributes.get_int("noop_with_empty_axes", 0) else range(rank)
    return [axis % rank for axis in given]


def _reduce_over(node: ir.Node, ties: Ties, axes: Sequence[int]) -> None:
    data, output = node.inputs[0], node.outputs[0]
    keeps_axes = bool(node.attributes.get_int("keepdims", 1))
    normalises = is_statistic(node)
    position = 0
    for axis in range(ties.rank(data)):
        if axis in axes:
            if normalises:
                ties.shared_statistics.append(ties.indices(data, axis))
            else:
                ties.freeze(ties.indices(data, axis), f"{node.op_type} goes over it")
            position += keeps_axes
            continue
        ties.tie_axes(data, axis, output, position)
        position += 1


def pool(node: ir.Node, ties: Ties) -> None:
    """Poolings, local and global: batch and channels are passed on."""
    for axis in range(2):
        for output in node.outputs:
            ties.tie_axes(node.inputs[0], axis, output, axis)
    for value in (node.inputs[0], *node.outputs):
        ties.freeze_axes(value, range(2, ties.rank(value)), SPATIAL)


def along_axis(node: ir.Node, ties: Ties) -> None:
    """Softmax and its like, CumSum, TopK: the axis they go along is kept."""
    data = node.inputs[0]
    rank = ties.rank(data)
    kept = _kept_axes(node, rank, ties.opset)
    if kept is None:
        ties.freeze_node(node, "the axis it goes along is computed")
        return
    reason = f"{node.op_type} goes along it"
    for axis in range(rank):
        for made in node.outputs:
            if made.name and axis not in kept:
                ties.tie_axes(data, axis, made, axis)
    for axis in kept:
        for value in (data, *node.outputs):
            ties.freeze(ties.indices(value, axis), reason)
    for setting in node.inputs[1:]:
        ties.freeze_value(setting, f"it is a setting of {node.op_type}")


def _kept_axes(node: ir.Node, rank: int, opset: int) -> Sequence[int] | None:
    if node.op_type == "CumSum":
        array = constant_array(node.inputs[1])
        return None if array is None else [int(array.reshape(-1)[0]) % rank]
    if node.op_type == "TopK":
        axis = node.attributes.get_int("axis", -1)
        return [(-1 if axis is None else axis) % rank]
    default = -1 if opset >= 13 else 1
    given = node.attributes.get_int("axis", default)
    first = (default if given is None else given) % rank
    # Before operator set 13 a softmax went over this axis and all that follow.
    return [first] if opset >= 13 else range(first, rank)


_REDUCTIONS = """
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare ArgMax ArgMin
"""
_POOLS = "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool"
_ALONG = "CumSum Hardmax LogSoftmax Softmax TopK"

RELATIONS: Mapping[tuple[str, str], Relation] = {
    **{("", name): reduce for name in _REDUCTIONS.split()},
    **{("", name): pool for name in _POOLS.split()},
    **{("", name): along_axis for name in _ALONG.split()},
}
