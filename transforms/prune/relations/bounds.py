"""The constant bounds of Slice and Pad, whichever operator set wrote them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from trimton.transforms.graph.edit import constant_array, input_at

_SLICE_WITH_INPUTS = 10


def slice_bounds(
    node: ir.Node, rank: int, opset: int
) -> Mapping[int, tuple[int | None, int | None, int]] | None:
    """Axis -> (start, end, step) as Python slices take them; None where one is computed."""
    if opset < _SLICE_WITH_INPUTS:
        starts = list(node.attributes.get_ints("starts", []) or [])
        ends = list(node.attributes.get_ints("ends", []) or [])
        axes = list(node.attributes.get_ints("axes", range(len(starts))) or ())
        steps = [1] * len(starts)
    else:
        lists = [_integers(input_at(node, index)) for index in range(1, 5)]
        if any(
            found is None and input_at(node, index + 1) is not None
            for index, found in enumerate(lists)
        ):
            return None
        starts, ends = lists[0] or [], lists[1] or []
        axes = lists[2] or list(range(len(starts)))
        steps = lists[3] or [1] * len(starts)
    return {
        axis % rank: (start, None if step < 0 and end < -(2**31) + 2 else end, step)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    }


def pad_widths(node: ir.Node, rank: int) -> Mapping[int, tuple[int, int]] | None:
    """Axis -> (before, after); None where the widths are computed."""
    given = node.attributes.get_ints("pads", None)
    widths = list(given) if given is not None else _integers(input_at(node, 1))
    axes = _integers(input_at(node, 3))
    if widths is None or (axes is None and input_at(node, 3) is not None):
        return None
    padded = list(range(rank)) if axes is None else axes
    half = len(padded)
    return {
        axis % rank: (widths[number], widths[number + half]) for number, axis in enumerate(padded)
    }


def _integers(value: ir.Value | None) -> list[int] | None:
    array = constant_array(value)
    return None if array is None else [int(number) for number in array.reshape(-1)]
