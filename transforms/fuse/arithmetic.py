"""Multiplying or adding a constant per channel after a convolution changes its weights.

Mul, Div, Add and Sub with a constant that is one number, or one number for each channel (axis
1), are per-channel affine maps: ``x * c``, ``x / c``, ``x + c``, ``x - c`` and ``c - x``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from trimton.transforms.fuse.affine import ChannelAffine, absorb, can_absorb
from trimton.transforms.fuse.family import Family, Match, at_nodes
from trimton.transforms.graph.edit import Array, Editor, constant_array, input_at
from trimton.transforms.graph.shapes import known_dims

# Operator -> (constant c, index of the data input) -> the map, None where it is not affine.
_MAPS: Mapping[str, Callable[[Array, int], ChannelAffine | None]] = {
    "Add": lambda c, data: ChannelAffine(np.ones(1), c),
    "Div": lambda c, data: None if data else ChannelAffine(1 / c, np.zeros(1)),
    "Mul": lambda c, data: ChannelAffine(c, np.zeros(1)),
    "Sub": lambda c, data: ChannelAffine(np.full(1, -1.0 if data else 1.0), c if data else -c),
}


def _fuse(node: ir.Node, editor: Editor) -> Match:
    for data in (0, 1):
        source, other = input_at(node, data), constant_array(input_at(node, 1 - data))
        producer = None if source is None else source.producer()
        if other is None or producer is None:
            continue
        if not can_absorb(producer) or other.dtype.kind != "f":
            continue
        channels = _per_channel(other, known_dims(source))
        if isinstance(channels, str):
            return channels
        with np.errstate(divide="ignore"):
            affine = _MAPS[node.op_type](channels.astype(np.float64), data)
        if affine is None:
            return False
        if producer.op_type == "MatMul" and affine.is_shift_only:
            return False  # MatMul and Add are a family of their own
        return absorb(producer, node, affine, editor)
    return False


def _per_channel(array: Array, dims: tuple[int | None, ...] | None) -> Array | str:
    """``array`` as [channels] or [1], or why it is no constant per channel."""
    if array.size == 1 and (array.ndim <= 1 or (dims is not None and array.ndim <= len(dims))):
        return array.reshape(1)
    if dims is None:
        return "the shape of its input is not known"
    if array.ndim > len(dims):
        return "its constant enlarges what it is applied to"
    shape = (*[1] * (len(dims) - array.ndim), *array.shape)
    if len(dims) < 2 or array.size != shape[1] or dims[1] != shape[1]:
        return "its constant is not one number for each channel"
    return array.reshape(-1)


ARITHMETIC = Family(
    "channel-arithmetic",
    "folded per-channel Mul, Div, Add and Sub into the weights before them",
    at_nodes(*_MAPS, rule=_fuse),
)
