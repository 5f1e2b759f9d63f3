"""Operators that move data without computing: every output index comes from one input index."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import constant_array, input_at
from trimton.transforms.prune.index_space import Indices
from trimton.transforms.prune.relations.bounds import pad_widths, slice_bounds
from trimton.transforms.prune.relations.relation import Relation
from trimton.transforms.prune.ties import Ties


def transpose(node: ir.Node, ties: Ties) -> None:
    """Transpose: axes are permuted, by default reversed."""
    rank = ties.rank(node.inputs[0])
    order = node.attributes.get_ints("perm", None) or range(rank)[::-1]
    for axis, source in enumerate(order):
        ties.tie_axes(node.inputs[0], source, node.outputs[0], axis)


def concat(node: ir.Node, ties: Ties) -> None:
    """Concat: along its axis every input has an offset."""
    output = node.outputs[0]
    rank = ties.rank(output)
    along = (node.attributes.get_int("axis", 1) or 0) % rank
    whole = ties.indices(output, along)
    sizes = [ties.size(value, along) for value in node.inputs]
    known = [0 if size is None else size for size in sizes]
    is_known = None not in sizes and whole.size == sum(known)
    for value, end in zip(node.inputs, np.cumsum(known), strict=True):
        part = ties.indices(value, along)
        ties.tie(whole[end - part.size : end] if is_known else whole[:0], part)
        for axis in set(range(rank)) - {along}:
            ties.tie_axes(value, axis, output, axis)
    if not is_known:
        ties.freeze(whole, "a part of unknown size is concatenated")


def split(node: ir.Node, ties: Ties) -> None:
    """Split: along its axis every output has an offset."""
    data = node.inputs[0]
    rank = ties.rank(data)
    along = (node.attributes.get_int("axis", 0) or 0) % rank
    whole = ties.indices(data, along)
    end = 0
    for output in node.outputs:
        part = ties.indices(output, along)
        end += part.size
        ties.tie(whole[end - part.size : end] if part.size else whole[:0], part)
        for axis in set(range(rank)) - {along}:
            ties.tie_axes(data, axis, output, axis)
    if end != whole.size:
        ties.freeze(whole, "it is split into parts of unknown size")
    ties.freeze_value(input_at(node, 1), "it lists sizes")


def slice_(node: ir.Node, ties: Ties) -> None:
    """Slice with constant bounds and step 1; any other keeps the sliced axes."""
    data, output = node.inputs[0], node.outputs[0]
    bounds = slice_bounds(node, ties.rank(data), ties.opset)
    if bounds is None:
        ties.freeze_node(node, "the bounds of a Slice are computed")
        return
    for axis in range(ties.rank(data)):
        whole, part = ties.indices(data, axis), ties.indices(output, axis)
        if axis not in bounds:
            ties.tie_axes(data, axis, output, axis)
            continue
        start, end, step = bounds[axis]
        taken = whole[start:end:step]
        if step != 1 or not part.size or taken.size != part.size:
            reason = "a Slice takes steps over it" if step != 1 else "a Slice of unknown size"
            ties.freeze(whole, reason)
            ties.freeze(part, reason)
            continue
        ties.tie(taken, part)
    for setting in node.inputs[1:]:
        ties.freeze_value(setting, "it holds the bounds of a Slice")


def gather(node: ir.Node, ties: Ties) -> None:
    """Gather: the other axes are passed on; its own only under a constant list of indices."""
    data, wanted, output = node.inputs[0], node.inputs[1], node.outputs[0]
    along = (node.attributes.get_int("axis", 0) or 0) % ties.rank(data)
    inserted = ties.rank(wanted)
    for axis in range(ties.rank(data)):
        if axis != along:
            target = axis if axis < along else axis - 1 + inserted
            ties.tie_axes(data, axis, output, target)
    whole, made = ties.indices(data, along), ties.indices(output, along)
    chosen = constant_array(wanted)
    if chosen is not None and chosen.ndim == 1 and whole.size and made.size == chosen.size:
        ties.tie(whole[chosen], made)
        ties.freeze_value(wanted, "it lists indices")
        return
    ties.freeze(whole, "single indices are gathered from it")
    for axis in range(inserted):
        ties.tie_axes(wanted, axis, output, along + axis)


def pad(node: ir.Node, ties: Ties) -> None:
    """Pad: padded axes are shifted; what is added is kept."""
    data, output = node.inputs[0], node.outputs[0]
    widths = pad_widths(node, ties.rank(data))
    if widths is None:
        ties.freeze_node(node, "the widths of a Pad are computed")
        return
    is_constant = node.attributes.get_string("mode", "constant") == "constant"
    for axis in range(ties.rank(data)):
        before, after = widths.get(axis, (0, 0))
        whole, made = ties.indices(data, axis), ties.indices(output, axis)
        if before == after == 0:
            ties.tie_axes(data, axis, output, axis)
        elif is_constant and min(before, after) >= 0 and made.size == before + whole.size + after:
            ties.tie(whole, made[before : before + whole.size])
            ties.freeze(made[:before], "a Pad makes it")
            ties.freeze(made[before + whole.size :], "a Pad makes it")
        else:
            ties.freeze(whole, "a Pad mirrors or crops it")
            ties.freeze(made, "a Pad mirrors or crops it")
    for setting in node.inputs[1:]:
        ties.freeze_value(setting, "it is a setting of Pad")


def tile(node: ir.Node, ties: Ties) -> None:
    """Tile: output index j comes from input index j modulo its size."""
    data, output = node.inputs[0], node.outputs[0]
    for axis in range(ties.rank(data)):
        whole, made = ties.indices(data, axis), ties.indices(output, axis)
        if whole.size and made.size and made.size % whole.size == 0:
            ties.tie(made.reshape(-1, whole.size), whole)
        else:
            ties.tie(whole, made[:0])
            ties.freeze(made, "it is repeated an unknown number of times")
    ties.freeze_value(input_at(node, 1), "it counts repetitions")


def expand(node: ir.Node, ties: Ties) -> None:
    """Expand: broadcasting to a shape, which is rewritten."""
    is_computed = constant_array(node.inputs[1]) is None
    if is_computed and ties.size(node.inputs[1], 0) != ties.rank(node.outputs[0]):
        ties.freeze_node(node, "the shape of an Expand is computed, and shorter than its output")
        return
    ties.broadcast(node.inputs[0], node.outputs[0])
    ties.freeze_value(node.inputs[1], "it is a shape")


def constant_of_shape(node: ir.Node, ties: Ties) -> None:
    """ConstantOfShape: every index is like the others, and the shape is rewritten."""
    ties.freeze_value(node.inputs[0], "it is a shape")


def shape(node: ir.Node, ties: Ties) -> None:
    """Shape: it asks for sizes; what reads them as a shape is rewritten."""
    ties.freeze_value(node.outputs[0], "it is a shape")


def size(node: ir.Node, ties: Ties) -> None:
    """Size: a count that goes into arithmetic must stay what it is."""
    ties.freeze_value(node.inputs[0], "its elements are counted")


def resize(node: ir.Node, ties: Ties) -> None:
    """Resize, Upsample: batch and channels are passed on, the rest is interpolated."""
    data, output = node.inputs[0], node.outputs[0]
    for axis in range(ties.rank(data)):
        if axis < 2:
            ties.tie_axes(data, axis, output, axis)
            continue
        for value in (data, output):
            ties.freeze(ties.indices(value, axis), "it is interpolated")
    for setting in node.inputs[1:]:
        ties.freeze_value(setting, "it holds sizes or scales")


def squeeze(node: ir.Node, ties: Ties) -> None:
    """Squeeze, Unsqueeze: the axes longer than 1 are passed on in order."""
    data, output = node.inputs[0], node.outputs[0]
    longer, shorter = (data, output) if node.op_type == "Squeeze" else (output, data)
    rank = ties.rank(longer)
    gone = _axes_of(node)
    if gone is None:
        ties.freeze_node(node, f"{node.op_type} without constant axes")
        return
    kept = [axis for axis in range(rank) if axis not in {a % rank for a in gone}]
    for axis, source in enumerate(kept):
        ties.tie_axes(longer, source, shorter, axis)
    ties.freeze_value(input_at(node, 1), "it lists axes")


def _axes_of(node: ir.Node) -> list[int] | None:
    given = node.attributes.get_ints("axes", None)
    if given is not None:
        return list(given)
    array = constant_array(input_at(node, 1))
    return None if array is None else [int(axis) for axis in array.reshape(-1)]


def depth_to_space(node: ir.Node, ties: Ties) -> None:
    """DepthToSpace: the block is kept, the channels that it makes are tied (DCR and CRD)."""
    block = (node.attributes.get_int("blocksize", 1) or 1) ** 2
    is_crd = node.attributes.get_string("mode", "DCR") == "CRD"
    _depth_and_space(node, ties, node.inputs[0], node.outputs[0], block, is_crd)


def space_to_depth(node: ir.Node, ties: Ties) -> None:
    """SpaceToDepth: the opposite of DepthToSpace in DCR order."""
    block = (node.attributes.get_int("blocksize", 1) or 1) ** 2
    _depth_and_space(node, ties, node.outputs[0], node.inputs[0], block, is_crd=False)


def _depth_and_space(
    node: ir.Node,
    ties: Ties,
    deep: ir.Value | None,
    wide: ir.Value | None,
    block: int,
    is_crd: bool,
) -> None:
    ties.tie_axes(deep, 0, wide, 0)
    many: Indices = ties.indices(deep, 1)
    few = ties.indices(wide, 1)
    if many.size == few.size * block:
        ties.tie(many.reshape(-1, block).T if is_crd else many.reshape(block, -1), few)
    for value in (deep, wide):
        ties.freeze_axes(value, range(2, ties.rank(value)), f"{node.op_type} rearranges it")


RELATIONS: Mapping[tuple[str, str], Relation] = {
    ("", "Concat"): concat,
    ("", "ConstantOfShape"): constant_of_shape,
    ("", "DepthToSpace"): depth_to_space,
    ("", "Expand"): expand,
    ("", "Gather"): gather,
    ("", "Pad"): pad,
    ("", "Resize"): resize,
    ("", "Shape"): shape,
    ("", "Size"): size,
    ("", "Slice"): slice_,
    ("", "SpaceToDepth"): space_to_depth,
    ("", "Split"): split,
    ("", "Squeeze"): squeeze,
    ("", "Tile"): tile,
    ("", "Transpose"): transpose,
    ("", "Unsqueeze"): squeeze,
    ("", "Upsample"): resize,
}
