"""Conv and ConvTranspose over one to three spatial axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trimton.transforms.distill.interpreter.node import Kernel, NodeView
from trimton.transforms.distill.interpreter.operators.spatial import Window, pad_spatial
from trimton.transforms.distill.interpreter.operators.table import Builder

_CONVOLUTIONS = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
_TRANSPOSED = {1: torch.conv_transpose1d, 2: torch.conv_transpose2d, 3: torch.conv_transpose3d}


def conv(view: NodeView) -> Kernel:
    """X [N, C, ...], W [M, C/group, ...], B [M]."""
    groups = view.integer("group", 1)
    rank = view.ranks[1] - 2
    window, convolve = Window.of(view, rank), _CONVOLUTIONS[rank]

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        kernel = weight.shape[2:]
        pads = window.padding(x.shape[2:], kernel)
        front, behind = pads[:rank], pads[rank:]
        if front != behind:
            x, front = pad_spatial(x, front, behind, 0.0), [0] * rank
        return convolve(x, weight, bias, window.strides, front, window.dilations, groups)

    return run


def conv_transpose(view: NodeView) -> Kernel:
    """X [N, C, ...], W [C, M/group, ...], B [M]; the padding is cut off what is made."""
    groups = view.integer("group", 1)
    output_shape = view.integers("output_shape")
    rank = view.ranks[1] - 2
    window, convolve = Window.of(view, rank), _TRANSPOSED[rank]
    extra = view.integers("output_padding") or [0] * rank

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        kernel = weight.shape[2:]
        full = [
            (size - 1) * stride + dilation * (k - 1) + 1 + more
            for size, stride, dilation, k, more in zip(
                x.shape[2:], window.strides, window.dilations, kernel, extra, strict=True
            )
        ]
        front, behind = _cut_off(window, x.shape[2:], full, output_shape)
        cut = [min(pair) if min(pair) > 0 else 0 for pair in zip(front, behind, strict=True)]
        y = convolve(x, weight, bias, window.strides, cut, extra, groups, window.dilations)
        if cut == front == behind:
            return y
        rest_front = [c - a for a, c in zip(front, cut, strict=True)]
        rest_behind = [c - a for a, c in zip(behind, cut, strict=True)]
        return pad_spatial(y, rest_front, rest_behind, 0.0)

    return run


def _cut_off(
    window: Window, sizes: Sequence[int], full: Sequence[int], wanted: Sequence[int] | None
) -> tuple[list[int], list[int]]:
    """What is cut off in front of and behind each axis of the ``full`` result."""
    if wanted is None:
        if window.pads is not None:
            return window.pads[: len(full)], window.pads[len(full) :]
        wanted = [size * stride for size, stride in zip(sizes, window.strides, strict=True)]
    totals = [whole - size for whole, size in zip(full, wanted[-len(full) :], strict=True)]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (small, large) if window.is_upper else (large, small)


OPERATORS: Mapping[tuple[str, str], Builder] = {
    ("", "Conv"): conv,
    ("", "ConvTranspose"): conv_transpose,
}
