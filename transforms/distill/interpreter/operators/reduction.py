"""Operators that look along axes: sums, extremes, softmax."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trimton.transforms.distill.interpreter.node import Kernel, NodeView
from trimton.transforms.distill.interpreter.operators.table import Builder

Reduce = Callable[[Tensor, list[int], bool], Tensor]


def _product(x: Tensor, axes: list[int], keeps: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keepdim=keeps)
    return x


_REDUCTIONS: Mapping[str, Reduce] = {
    "ReduceL1": lambda x, axes, keeps: x.abs().sum(axes, keeps, dtype=x.dtype),
    "ReduceL2": lambda x, axes, keeps: x.square().sum(axes, keeps).sqrt(),
    "ReduceLogSum": lambda x, axes, keeps: x.sum(axes, keeps).log(),
    "ReduceLogSumExp": lambda x, axes, keeps: torch.logsumexp(x, axes, keeps),
    "ReduceMax": lambda x, axes, keeps: x.amax(axes, keeps),
    "ReduceMean": lambda x, axes, keeps: x.mean(axes, keeps),
    "ReduceMin": lambda x, axes, keeps: x.amin(axes, keeps),
    "ReduceProd": _product,
    "ReduceSum": lambda x, axes, keeps: x.sum(axes, keeps, dtype=x.dtype),
    "ReduceSumSquare": lambda x, axes, keeps: x.square().sum(axes, keeps, dtype=x.dtype),
}


def reduction(reduce: Reduce) -> Builder:
    """An operator over the axes that an attribute or the second input lists, or over all."""

    def build(view: NodeView) -> Kernel:
        keeps, ignores_none = view.flag("keepdims", True), view.flag("noop_with_empty_axes")
        attribute, axes_of = view.integers("axes"), view.reader(1)

        def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
            given = attribute if attribute is not None else axes_of(axes)
            if not given:
                if ignores_none:
                    return x
                given = list(range(x.ndim))
            return reduce(x, given, keeps) if x.ndim else reduce(x.reshape(1), [0], False)

        return run

    return build


def softmax(function: Callable[[Tensor, int], Tensor]) -> Builder:
    """Along one axis; before operator set 13 over that axis and all that follow, as one."""

    def build(view: NodeView) -> Kernel:
        if view.opset >= 13:
            axis = view.integer("axis", -1)
            return lambda x: function(x, axis)
        first = view.integer("axis", 1)

        def run(x: Tensor) -> Tensor:
            start = first % x.ndim
            return function(x.flatten(start), start).reshape(x.shape)

        return run

    return build


OPERATORS: Mapping[tuple[str, str], Builder] = {
    **{("", name): reduction(reduce) for name, reduce in _REDUCTIONS.items()},
    ("", "LogSoftmax"): softmax(torch.log_softmax),
    ("", "Softmax"): softmax(torch.softmax),
}
