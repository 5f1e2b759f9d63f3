"""Operators that look along one axis for what is largest, or add up along it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trimton.transforms.distill.interpreter.node import Kernel, NodeView, Results
from trimton.transforms.distill.interpreter.operators.table import Builder


def arg_extreme(find: Callable[..., Tensor]) -> Builder:
    """ArgMax, ArgMin: the first place of the extreme, or the last one."""

    def build(view: NodeView) -> Kernel:
        axis, keeps = view.integer("axis", 0), view.flag("keepdims", True)
        is_last = view.flag("select_last_index")

        def run(x: Tensor) -> Tensor:
            if not is_last:
                return find(x, axis, keepdim=keeps)
            return x.shape[axis] - 1 - find(x.flip(axis), axis, keepdim=keeps)

        return run

    return build


def top_k(view: NodeView) -> Kernel:
    """The k largest or smallest; of equal ones the first, as ONNX Runtime has it."""
    axis, is_largest = view.integer("axis", -1), view.flag("largest", True)
    attribute, count_of = view.integer("k", 0), view.reader(1)

    def run(x: Tensor, count: Tensor | None = None) -> Results:
        k = (count_of(count) or [attribute])[0]
        values, places = torch.sort(x, dim=axis, descending=is_largest, stable=True)
        return values.narrow(axis, 0, k), places.narrow(axis, 0, k)

    return run


def hardmax(view: NodeView) -> Kernel:
    """1 at the first largest element; before operator set 13 over ``axis`` and all that follow."""
    is_joint = view.opset < 13
    axis = view.integer("axis", 1 if is_joint else -1)

    def run(x: Tensor) -> Tensor:
        flat = x.flatten(axis % x.ndim) if is_joint else x
        along = axis % x.ndim
        places = flat.argmax(along, keepdim=True)
        return torch.zeros_like(flat).scatter(along, places, 1.0).reshape(x.shape)

    return run


def cumulative_sum(view: NodeView) -> Kernel:
    """Sums of all that stands before, with or without the element itself, from either end."""
    axis_of, is_exclusive, is_reverse = view.reader(1), view.flag("exclusive"), view.flag("reverse")

    def run(x: Tensor, axis: Tensor) -> Tensor:
        along = (axis_of(axis) or [0])[0]
        x = x.flip(along) if is_reverse else x
        sums = x.cumsum(along, dtype=x.dtype)
        sums = sums - x if is_exclusive else sums
        return sums.flip(along) if is_reverse else sums

    return run


OPERATORS: Mapping[tuple[str, str], Builder] = {
    ("", "ArgMax"): arg_extreme(torch.argmax),
    ("", "ArgMin"): arg_extreme(torch.argmin),
    ("", "CumSum"): cumulative_sum,
    ("", "Hardmax"): hardmax,
    ("", "TopK"): top_k,
}
