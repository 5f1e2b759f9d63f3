"""Nodes that give back their input: Identity, Dropout at inference, and no-op forms of others.

Each entry of NO_OPS says of one operator which input it gives back, if it does. The table is
about the operator's meaning alone; whether the node can go is decided once, for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from trimton.transforms.fuse.family import Family, Match, at_nodes
from trimton.transforms.fuse.pads import pads_of
from trimton.transforms.graph.edit import (
    Array,
    Editor,
    can_replace,
    constant_array,
    erase,
    input_at,
    replace_value,
)
from trimton.transforms.graph.shapes import known_dims

# The index of the input that the node gives back; None where it does something; a reason where
# it would be a no-op but for something it also does.
PassedOn = int | None | str

_DROPOUT_HAS_TRAINING_MODE = 12
_FURTHEST_END = 2**31 - 1


def _first(node: ir.Node, editor: Editor) -> PassedOn:
    return 0


def _if_single(node: ir.Node, editor: Editor) -> PassedOn:
    return 0 if len(node.inputs) == 1 else None


def _dropout(node: ir.Node, editor: Editor) -> PassedOn:
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return "its mask is used"
    if editor.opset >= _DROPOUT_HAS_TRAINING_MODE and input_at(node, 2) is not None:
        training = constant_array(input_at(node, 2))
        if training is None or bool(training.reshape(-1)[0]):
            return "it may be in training mode"
    return 0


def _cast(node: ir.Node, editor: Editor) -> PassedOn:
    source = input_at(node, 0)
    is_same = source is not None and source.dtype == node.attributes.get_int("to", None)
    return 0 if is_same else None


def _transpose(node: ir.Node, editor: Editor) -> PassedOn:
    perm = node.attributes.get_ints("perm", None)
    return 0 if perm is not None and list(perm) == list(range(len(perm))) else None


def _reshape(node: ir.Node, editor: Editor) -> PassedOn:
    dims, target = known_dims(input_at(node, 0)), constant_array(input_at(node, 1))
    if dims is None or target is None or len(dims) != target.size:
        return None
    copies_zero = not node.attributes.get_int("allowzero", 0)
    wanted = [int(size) for size in target.reshape(-1)]
    kept = [
        size == dim or (size == 0 and copies_zero) for size, dim in zip(wanted, dims, strict=True)
    ]
    # One -1 takes what the others leave: with these kept, its own dimension.
    others_kept = wanted.count(-1) <= 1 and all(
        k or s == -1 for k, s in zip(kept, wanted, strict=True)
    )
    return 0 if others_kept and 0 not in dims else None


def _flatten(node: ir.Node, editor: Editor) -> PassedOn:
    dims = known_dims(input_at(node, 0))
    return 0 if dims is not None and len(dims) == 2 and _axis(node, 1, rank=2) == 1 else None


def _expand(node: ir.Node, editor: Editor) -> PassedOn:
    dims, target = known_dims(input_at(node, 0)), constant_array(input_at(node, 1))
    if dims is None or target is None or target.size > len(dims):
        return None
    tail = dims[len(dims) - target.size :]
    return 0 if all(int(t) in (1, dim) for t, dim in zip(target, tail, strict=True)) else None


def _slice(node: ir.Node, editor: Editor) -> PassedOn:
    dims = known_dims(input_at(node, 0))
    if editor.opset < 10:
        starts: Sequence[int] | None = node.attributes.get_ints("starts", None)
        ends: Sequence[int] | None = node.attributes.get_ints("ends", None)
        axes: Sequence[int] | None = node.attributes.get_ints("axes", None)
        steps: Sequence[int] | None = None
    else:
        starts, ends, axes, steps = (_ints(input_at(node, index)) for index in (1, 2, 3, 4))
        if any(input_at(node, i) is not None and _ints(input_at(node, i)) is None for i in (3, 4)):
            return None
    if starts is None or ends is None or dims is None:
        return None
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    whole = all(
        start == 0 and step == 1 and (end >= _FURTHEST_END or end == dims[axis])
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True)
    )
    return 0 if whole else None


def _pad(node: ir.Node, editor: Editor) -> PassedOn:
    pads = pads_of(node, editor)
    return 0 if not isinstance(pads, str) and pads.is_empty else None


def _scales(index: int) -> Callable[[ir.Node, Editor], PassedOn]:
    def resize(node: ir.Node, editor: Editor) -> PassedOn:
        scales = constant_array(input_at(node, index))
        is_same = scales is not None and scales.size > 0 and bool(np.all(scales == 1))
        return 0 if is_same and input_at(node, index + 1) is None else None

    return resize


def _with(neutral: float, *, data: tuple[int, ...]) -> Callable[[ir.Node, Editor], PassedOn]:
    """A binary operator that gives back input ``data`` when the other is all ``neutral``."""

    def binary(node: ir.Node, editor: Editor) -> PassedOn:
        for index in data:
            other = constant_array(input_at(node, 1 - index))
            is_neutral = other is not None and other.size > 0 and bool(np.all(other == neutral))
            if is_neutral and other is not None and _keeps_shape(input_at(node, index), other):
                return index
        return None

    return binary


def _keeps_shape(value: ir.Value | None, other: Array) -> bool:
    """Whether broadcasting ``value`` against ``other`` gives the shape of ``value``."""
    if other.ndim == 0:
        return True
    dims = known_dims(value)
    if dims is None or other.ndim > len(dims):
        return False
    tail = dims[len(dims) - other.ndim :]
    return all(size in (1, dim) for size, dim in zip(other.shape, tail, strict=True))


def _axis(node: ir.Node, default: int, rank: int) -> int:
    axis = node.attributes.get_int("axis", default)
    return axis + rank if axis < 0 else axis


def _ints(value: ir.Value | None) -> list[int] | None:
    array = constant_array(value)
    return None if array is None else [int(item) for item in array.reshape(-1)]


NO_OPS: Mapping[str, Callable[[ir.Node, Editor], PassedOn]] = {
    "Add": _with(0, data=(0, 1)),
    "Cast": _cast,
    "Concat": _if_single,
    "Div": _with(1, data=(0,)),
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "Identity": _first,
    "Max": _if_single,
    "Mean": _if_single,
    "Min": _if_single,
    "Mul": _with(1, data=(0, 1)),
    "Pad": _pad,
    "Pow": _with(1, data=(0,)),
    "Reshape": _reshape,
    "Resize": _scales(2),
    "Slice": _slice,
    "Sub": _with(0, data=(0,)),
    "Sum": _if_single,
    "Transpose": _transpose,
    "Upsample": _scales(1),
}


def _remove(node: ir.Node, editor: Editor) -> Match:
    index = NO_OPS[node.op_type](node, editor)
    if index is None or isinstance(index, str):
        return index or False
    source, output = node.inputs[index], node.outputs[0]
    if source is None:
        return False
    if source.type is not None and output.type is not None and source.type != output.type:
        return False
    if not can_replace(output, source):
        if node.op_type == "Identity":
            return False
        return "it does nothing, but gives an output of the graph its name"
    replace_value(output, source)
    erase(node)
    return True


NO_OP_NODES = Family(
    "no-ops", "removed nodes that give back their input", at_nodes(*NO_OPS, rule=_remove)
)
