"""Numbers that encode sizes, rewritten: attributes, shapes, split sizes, bounds, indices.

A rewrite is a function ``(node, kept, editor)`` named after its operator; weights need none, they
are sliced along their tied axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, Editor, constant_array, input_at
from trimton.transforms.graph.shapes import known_dims
from trimton.transforms.prune.index_space import Indices
from trimton.transforms.prune.relations.bounds import slice_bounds
from trimton.transforms.prune.relations.reduction import reduced_axes
from trimton.transforms.prune.relations.statistics import mean_factor
from trimton.transforms.prune.ties import Ties

_SPLIT_WITH_INPUT = 13


@dataclass(frozen=True)
class Kept:
    """What stays: ``is_kept`` by index number, [indices] of booleans."""

    ties: Ties
    is_kept: Array

    def mask(self, value: ir.Value | None, axis: int) -> Array:
        """Which indices of an axis stay, [size]; empty where its size is not known."""
        mask: Array = self.is_kept[self.ties.indices(value, axis)]
        return mask

    def places(self, value: ir.Value | None, axis: int) -> Indices:
        """The places on an axis that stay, ascending."""
        return np.flatnonzero(self.mask(value, axis))

    def size(self, value: ir.Value | None, axis: int) -> int | None:
        """The new size of an axis; None where it is not known."""
        mask = self.mask(value, axis)
        return int(mask.sum()) if mask.size else None

    def is_cut(self, value: ir.Value | None, axis: int | None = None) -> bool:
        """Whether the axis (or, without one, any axis) of ``value`` loses indices."""
        axes = range(self.ties.rank(value)) if axis is None else (axis,)
        return any(not self.mask(value, position).all() for position in axes)


Rewrite = Callable[[ir.Node, Kept, Editor], None]


def grouped(node: ir.Node, kept: Kept, editor: Editor) -> None:
    """Conv, ConvTranspose: a depthwise kernel has as many groups as channels."""
    groups = node.attributes.get_int("group", 1) or 1
    channels = kept.size(node.inputs[0], 1)
    if groups > 1 and groups == kept.ties.size(node.inputs[0], 1) and channels is not None:
        node.attributes["group"] = ir.AttrInt64("group", channels)


def shaped(node: ir.Node, kept: Kept, editor: Editor) -> None:
    """Reshape, Expand: the second input is the shape of the output."""
    _rewrite_shape(node, 1, kept, editor)


def constant_of_shape(node: ir.Node, kept: Kept, editor: Editor) -> None:
    """ConstantOfShape: its only input is the shape of the output."""
    _rewrite_shape(node, 0, kept, editor)


def resize(node: ir.Node, kept: Kept, editor: Editor) -> None:
    """Resize: the fourth input may list sizes, the scales of channels are 1 anyway."""
    sizes = constant_array(input_at(node, 3))
    if sizes is None or not kept.is_cut(node.outputs[0]):
        return
    axes = node.attributes.get_ints("axes", range(len(sizes))) or ()
    new = [kept.size(node.outputs[0], axis) for axis in axes]
    found = [old if size is None else size for old, size in zip(sizes, new, strict=True)]
    editor.set_constant(node, 3, np.array(found, np.int64), "sizes")


def _rewrite_shape(node: ir.Node, index: int, kept: Kept, editor: Editor) -> None:
    """Put the new sizes into a constant shape, or lay them over one that is computed."""
    output, shape = node.outputs[0], node.inputs[index]
    dims = known_dims(output)
    if shape is None or dims is None or not kept.is_cut(output):
        return
    cut = [axis for axis in range(len(dims)) if kept.is_cut(output, axis)]
    sizes = np.array([kept.size(output, axis) or 0 for axis in range(len(dims))], np.int64)
    given = constant_array(shape)
    if given is not None:
        new = given.copy()
        for axis in cut:
            place = axis - (len(dims) - len(given))  # Expand aligns a shorter shape at its end
            if place >= 0 and given[place] != -1:
                new[place] = sizes[axis]
        editor.set_constant(node, index, new, shape.name or "shape")
        return
    graph = node.graph
    if graph is None:
        raise ValueError("the node belongs to no graph")
    is_new = np.isin(np.arange(len(dims)), cut)
    name = editor.fresh_name(f"{shape.name}_cut")
    where = ir.node(
        "Where",
        [
            editor.add_constant(graph, f"{shape.name}_is_cut", is_new),
            editor.add_constant(graph, f"{shape.name}_sizes", sizes),
            shape,
        ],
        outputs=[ir.Value(name=name, type=shape.type, shape=shape.shape)],
        name=name,
    )
    graph.insert_before(node, where)
    node.replace_input_with(index, where.outputs[0])


def split(node: ir.Node, kept: Kept, editor: Editor) -> None:
    """Split: every part gets its own size."""
    data = node.inputs[0]
    axis = (node.attributes.get_int("axis", 0) or 0) % kept.ties.rank(data)
    sizes = [kept.size(output, axis) for output in node.outputs]
    if not kept.is_cut(data, axis) or None in sizes:
        return
    numbers = [size for size in sizes if size is not None]
    if editor.opset < _SPLIT_WITH_INPUT:
        node.attributes["split"] = ir.AttrInt64s("split", numbers)
        return
    node.attributes.pop("num_outputs", None)
    editor.set_constant(node, 1, np.array(numbers, np.int64), f"{node.outputs[0].name}_split")


def slice_(node: ir.Node, kept: Kept, editor: Editor) -> None:
    """Slice: a bound moves down by the number of indices removed before it."""
    data = node.inputs[0]
    bounds = slice_bounds(node, kept.ties.rank(data), editor.opset) or {}
    if not any(kept.is_cut(data, axis) for axis in bounds):
        return
    starts: list[int] = []
    ends: list[int] = []
    for axis, (start, end, step) in bounds.items():
        mask = kept.mask(data, axis)
        if mask.all():
            starts.append(start or 0)
            ends.append(-(2**63) if end is None else end)
            continue
        first, last, _ = slice(start, end, step).indices(len(mask))
        starts.append(int(mask[:first].sum()))
        ends.append(int(mask[:last].sum()))
    if editor.opset < 10:
        node.attributes["starts"] = ir.AttrInt64s("starts", starts)
        node.attributes["ends"] = ir.AttrInt64s("ends", ends)
        return
    for index, numbers in ((1, starts), (2, ends)):
        old = constant_array(node.inputs[index])
        dtype = np.dtype(np.int64) if old is None else old.dtype
        limits = np.iinfo(dtype)
        array = np.clip(np.array(numbers, np.int64), limits.min, limits.max).astype(dtype)
        editor.set_constant(node, index, array, f"{node.outputs[0].name}_bound")


def gather(node: ir.Node, kept: Kept, editor: Editor) -> None:
    """Gather: the indices that stay, counted among those that stay."""
    data, wanted, output = node.inputs[0], constant_array(node.inputs[1]), node.outputs[0]
    axis = (node.attributes.get_int("axis", 0) or 0) % kept.ties.rank(data)
    mask = kept.mask(data, axis)
    if wanted is None or wanted.ndim != 1 or mask.all():
        return
    new_places = np.cumsum(mask) - 1
    chosen = np.where(wanted < 0, wanted + len(mask), wanted)[kept.places(output, axis)]
    editor.set_constant(node, 1, new_places[chosen].astype(wanted.dtype), "indices")


def recurrent(node: ir.Node, kept: Kept, editor: Editor) -> None:
    """LSTM, GRU, RNN: the attribute hidden_size."""
    if (size := kept.size(node.inputs[2], 2)) is not None:
        node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", size)


def mean(node: ir.Node, kept: Kept, editor: Editor) -> None:
    """ReduceSum that a factor makes a mean: it goes over fewer elements."""
    data = node.inputs[0]
    axes = reduced_axes(node, kept.ties.rank(data)) or ()
    before, after = (
        prod(size(data, axis) or 0 for axis in axes) for size in (kept.ties.size, kept.size)
    )
    found = mean_factor(node, before)
    if found is None or not after or before == after:
        return
    user, index, factor = found
    ratio = before / after if user.op_type == "Mul" else after / before
    editor.set_constant(user, index, (factor * ratio).astype(factor.dtype), "mean_factor")


def heads(node: ir.Node, kept: Kept, editor: Editor) -> None:
    """Attention: the number of heads; the scale stays what it was, it belongs to their width."""
    before, after = kept.ties.size(node.outputs[0], 2), kept.size(node.outputs[0], 2)
    if before is None or after is None or before == after:
        return
    for name in ("num_heads", "q_num_heads", "kv_num_heads"):
        if (number := node.attributes.get_int(name, 0) or 0) > 0:
            node.attributes[name] = ir.AttrInt64(name, number * after // before)


REWRITES: Mapping[str, Rewrite] = {
    "Attention": heads,
    "ConstantOfShape": constant_of_shape,
    "Conv": grouped,
    "ConvTranspose": grouped,
    "Expand": shaped,
    "FusedConv": grouped,
    "GRU": recurrent,
    "Gather": gather,
    "LSTM": recurrent,
    "MultiHeadAttention": heads,
    "RNN": recurrent,
    "ReduceSum": mean,
    "ReduceSumSquare": mean,
    "Reshape": shaped,
    "Resize": resize,
    "Slice": slice_,
    "Split": split,
}
