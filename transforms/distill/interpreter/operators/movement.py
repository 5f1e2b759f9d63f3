"""Operators that move elements or change shapes, and compute nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from trimton.transforms.distill.interpreter.node import Kernel, NodeView, Results
from trimton.transforms.distill.interpreter.operators.table import Builder


def reshape(view: NodeView) -> Kernel:
    """0 keeps the dimension in its place unless ``allowzero``; -1 is what is left."""
    allows_zero, shape_of = view.flag("allowzero"), view.reader(1)

    def run(x: Tensor, shape: Tensor) -> Tensor:
        wanted = shape_of(shape) or []
        if not allows_zero:
            wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
        return x.reshape(wanted)

    return run


def flatten(view: NodeView) -> Kernel:
    """A matrix: the axes in front of ``axis``, and the others."""
    axis = view.integer("axis", 1)

    def run(x: Tensor) -> Tensor:
        rows = math.prod(x.shape[: axis % x.ndim if axis < 0 else axis])
        return x.reshape(rows, x.numel() // rows if rows else 0)

    return run


def transpose(view: NodeView) -> Kernel:
    """The axes in the order of ``perm``, or turned round."""
    order = view.integers("perm") or list(range(view.ranks[0]))[::-1]
    return lambda x: x.permute(order)


def squeeze(view: NodeView) -> Kernel:
    """Without the axes given, or without all of size 1."""
    attribute, axes_of = view.integers("axes"), view.reader(1)

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        given = attribute if attribute is not None else axes_of(axes)
        return x.squeeze() if given is None else x.squeeze([axis % x.ndim for axis in given])

    return run


def unsqueeze(view: NodeView) -> Kernel:
    """With axes of size 1 at the places given in the result."""
    attribute, axes_of = view.integers("axes"), view.reader(1)

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        given = attribute if attribute is not None else (axes_of(axes) or [])
        rank = x.ndim + len(given)
        for axis in sorted(axis % rank for axis in given):
            x = x.unsqueeze(axis)
        return x

    return run


def concat(view: NodeView) -> Kernel:
    """The inputs side by side along ``axis``."""
    axis = view.integer("axis", 1)
    return lambda *parts: torch.cat(parts, axis)


def split(view: NodeView) -> Kernel:
    """Parts along ``axis``: of the sizes given, or equal, the last smaller."""
    axis, attribute, sizes_of = view.integer("axis", 0), view.integers("split"), view.reader(1)

    def run(x: Tensor, sizes: Tensor | None = None) -> Results:
        given = attribute if attribute is not None else sizes_of(sizes)
        if given is None:
            whole = x.shape[axis]
            part = math.ceil(whole / view.outputs)
            given = [max(0, min(part, whole - start * part)) for start in range(view.outputs)]
        parts = torch.split(x, given, axis)
        return parts if len(parts) > 1 else parts[0]

    return run


def slice_(view: NodeView) -> Kernel:
    """x[start:end:step] on each axis given; bounds are attributes before operator set 10."""
    if view.opset < 10:
        starts, ends = view.integers("starts") or [], view.integers("ends") or []
        axes = view.integers("axes")
        return lambda x: _sliced(x, starts, ends, axes, None)
    starts_of, ends_of, axes_of, steps_of = (view.reader(index) for index in range(1, 5))

    def run(x: Tensor, *bounds: Tensor | None) -> Tensor:
        start, end, axis, step = (*bounds, None, None)[:4]
        return _sliced(x, starts_of(start) or [], ends_of(end) or [], axes_of(axis), steps_of(step))

    return run


def _sliced(
    x: Tensor,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> Tensor:
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    cuts = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        if step > 0:
            cuts[axis] = slice(*slice(start, end, step).indices(size))
            continue
        chosen = list(range(size))[_backwards(start, end, step, size)]
        x = x.index_select(axis, torch.tensor(chosen, dtype=torch.int64))
    return x[tuple(cuts)]


def _backwards(start: int, end: int, step: int, size: int) -> slice:
    """ONNX counts ``end`` from behind once; what is still below 0 means the very front."""
    start = max(start + size, -1) if start < 0 else start
    end = end + size if end < 0 else end
    return slice(start, None if end < 0 else end, step) if start >= 0 else slice(0, 0)


def expand(view: NodeView) -> Kernel:
    """Broadcast to the common shape of x and the shape given."""
    shape_of = view.reader(1)

    def run(x: Tensor, shape: Tensor) -> Tensor:
        wanted = shape_of(shape) or []
        wanted = [1] * (x.ndim - len(wanted)) + wanted
        known = [1] * (len(wanted) - x.ndim) + list(x.shape)
        return x.expand([n if n != 1 else m for n, m in zip(known, wanted, strict=True)])

    return run


def tile(view: NodeView) -> Kernel:
    """x repeated along each axis."""
    repeats_of = view.reader(1)
    return lambda x, repeats: x.repeat(repeats_of(repeats) or [])


def pad(view: NodeView) -> Kernel:
    """A constant, the edge, the mirrored or the repeated content around x."""
    mode = view.text("mode", "constant")
    attribute = view.integers("pads") if view.opset < 11 else None
    pads_of, axes_of = view.reader(1), view.reader(3)
    fixed = view.number("value", 0.0) if view.opset < 11 else view.known_number(2)

    def run(
        x: Tensor,
        pads: Tensor | None = None,
        value: Tensor | None = None,
        axes: Tensor | None = None,
    ) -> Tensor:
        amounts = attribute if attribute is not None else (pads_of(pads) or [])
        listed = axes_of(axes)
        chosen = range(x.ndim) if listed is None else [axis % x.ndim for axis in listed]
        around = [(0, 0)] * x.ndim
        for place, axis in enumerate(chosen):
            around[axis] = (amounts[place], amounts[place + len(chosen)])
        if mode != "constant":
            return _around(x, around, mode)
        filling = fixed if fixed is not None else 0.0 if value is None else value.item()
        flat = [amount for pair in reversed(around) for amount in pair]
        return F.pad(x, flat, value=filling)

    return run


def _around(x: Tensor, around: Sequence[tuple[int, int]], mode: str) -> Tensor:
    """One axis after the other, by the indices that stand in the new places."""
    for axis, (front, behind) in enumerate(around):
        if front == behind == 0:
            continue
        size = x.shape[axis]
        places = torch.arange(-front, size + behind)
        if mode == "edge":
            places = places.clamp(0, size - 1)
        elif mode == "wrap":
            places = places.remainder(size)
        else:  # mirrored without the outermost element
            period = max(1, 2 * (size - 1))
            places = places.remainder(period)
            places = torch.minimum(places, period - places)
        x = x.index_select(axis, places)
    return x


OPERATORS: Mapping[tuple[str, str], Builder] = {
    ("", "Concat"): concat,
    ("", "Expand"): expand,
    ("", "Flatten"): flatten,
    ("", "Pad"): pad,
    ("", "Reshape"): reshape,
    ("", "Slice"): slice_,
    ("", "Split"): split,
    ("", "Squeeze"): squeeze,
    ("", "Tile"): tile,
    ("", "Transpose"): transpose,
    ("", "Unsqueeze"): unsqueeze,
}
