"""Pooling over windows and over all spatial axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from trimton.transforms.distill.interpreter.node import Kernel, NodeView, Results
from trimton.transforms.distill.interpreter.operators.spatial import Window, pad_spatial
from trimton.transforms.distill.interpreter.operators.table import Builder, plain

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_AVERAGES = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_MAXIMA = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_INDEXED_MAXIMA = {
    1: F.max_pool1d_with_indices,
    2: F.max_pool2d_with_indices,
    3: F.max_pool3d_with_indices,
}


def _padded(
    view: NodeView, window: Window, kernel: Sequence[int], x: Tensor
) -> tuple[list[int], list[int], list[int]]:
    """Padding in front, behind, and what rounding up adds behind that."""
    rank, sizes = len(kernel), x.shape[2:]
    pads = window.padding(sizes, kernel)
    front, behind, more = pads[:rank], pads[rank:], [0] * rank
    if not view.flag("ceil_mode"):
        return front, behind, more
    for axis, (k, stride, dilation) in enumerate(
        zip(kernel, window.strides, window.dilations, strict=True)
    ):
        padded = sizes[axis] + front[axis] + behind[axis]
        last = math.ceil((padded - dilation * (k - 1) - 1) / stride) * stride
        if last >= sizes[axis] + front[axis]:  # a window must not begin behind the data
            last -= stride
        more[axis] = max(0, last + dilation * (k - 1) + 1 - padded)
    return front, behind, more


def average_pool(view: NodeView) -> Kernel:
    """The mean over windows, with or without the padding."""
    kernel = view.integers("kernel_shape") or []
    rank, counts_padding = len(kernel), view.flag("count_include_pad")
    window, average = Window.of(view, rank), _AVERAGES[rank]
    is_dense = all(dilation == 1 for dilation in window.dilations)

    def run(x: Tensor) -> Tensor:
        front, behind, more = _padded(view, window, kernel, x)
        if is_dense and front == behind and not any(more) and _is_narrow(front, kernel):
            return average(x, kernel, window.strides, front, False, counts_padding)
        everywhere = [b + m for b, m in zip(behind, more, strict=True)]
        total = _window_sums(pad_spatial(x, front, everywhere, 0.0), kernel, window)
        ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype)
        counted = pad_spatial(ones, front, behind, float(counts_padding))
        counted = pad_spatial(counted, [0] * rank, more, 0.0)
        return total / _window_sums(counted, kernel, window)

    return run


def _window_sums(x: Tensor, kernel: Sequence[int], window: Window) -> Tensor:
    channels = x.shape[1]
    ones = torch.ones((channels, 1, *kernel), dtype=x.dtype)
    convolve = _CONVOLUTIONS[len(kernel)]
    return convolve(x, ones, stride=window.strides, dilation=window.dilations, groups=channels)


def _is_narrow(front: Sequence[int], kernel: Sequence[int]) -> bool:
    """Whether torch's own pooling takes this padding: at most half of the window."""
    return all(2 * pad <= k for pad, k in zip(front, kernel, strict=True))


def max_pool(view: NodeView) -> Kernel:
    """The largest element of every window, and where it stands in the whole tensor."""
    kernel = view.integers("kernel_shape") or []
    rank, wants_indices = len(kernel), view.wants(1)
    window = Window.of(view, rank)
    pool = _INDEXED_MAXIMA[rank] if wants_indices else _MAXIMA[rank]
    is_column_major = view.flag("storage_order")

    def run(x: Tensor) -> Results:
        front, behind, more = _padded(view, window, kernel, x)
        padded, sizes = x, x.shape[2:]
        if front != behind or any(more) or not _is_narrow(front, kernel):
            everywhere = [b + m for b, m in zip(behind, more, strict=True)]
            padded = pad_spatial(x, front, everywhere, _lowest(x.dtype))
            pads, shift = [0] * rank, front
        else:
            pads, shift = front, [0] * rank
        made = pool(padded, kernel, window.strides, pads, window.dilations)
        if not wants_indices:
            return made
        places = _places(made[1], padded.shape[2:], shift, sizes, is_column_major)
        return made[0], places

    return run


def _lowest(dtype: torch.dtype) -> float:
    return -math.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def _places(
    flat: Tensor, padded: Sequence[int], shift: Sequence[int], sizes: Sequence[int], column: bool
) -> Tensor:
    """Indices into one padded plane as indices into the whole tensor without padding."""
    axes = torch.unravel_index(flat, tuple(padded))
    plane = torch.zeros_like(flat)
    order = list(enumerate(axes))
    for axis, position in reversed(order) if column else order:
        plane = plane * sizes[axis] + position - shift[axis]
    planes = torch.arange(flat.shape[0] * flat.shape[1]).reshape(flat.shape[:2])
    return plane + (planes * math.prod(sizes)).reshape(*flat.shape[:2], *[1] * len(sizes))


def lp_pool(view: NodeView) -> Kernel:
    """(sum over the window of |x|^p)^(1/p)."""
    kernel, p = view.integers("kernel_shape") or [], view.integer("p", 2)
    window = Window.of(view, len(kernel))

    def run(x: Tensor) -> Tensor:
        front, behind, more = _padded(view, window, kernel, x)
        everywhere = [b + m for b, m in zip(behind, more, strict=True)]
        powers = pad_spatial(x.abs() ** p, front, everywhere, 0.0)
        sums = _window_sums(powers, kernel, window)
        return torch.pow(sums, 1.0 / p)

    return run


def _spatial(x: Tensor) -> list[int]:
    return list(range(2, x.ndim))


def global_average_pool(x: Tensor) -> Tensor:
    """The mean of every channel."""
    return x.mean(_spatial(x), keepdim=True)


def global_max_pool(x: Tensor) -> Tensor:
    """The largest element of every channel."""
    return x.amax(_spatial(x), keepdim=True)


def global_lp_pool(view: NodeView) -> Kernel:
    """(sum over a channel of |x|^p)^(1/p)."""
    p = view.integer("p", 2)
    return lambda x: torch.pow((x.abs() ** p).sum(_spatial(x), keepdim=True), 1.0 / p)


OPERATORS: Mapping[tuple[str, str], Builder] = {
    ("", "AveragePool"): average_pool,
    ("", "GlobalAveragePool"): plain(global_average_pool),
    ("", "GlobalLpPool"): global_lp_pool,
    ("", "GlobalMaxPool"): plain(global_max_pool),
    ("", "LpPool"): lp_pool,
    ("", "MaxPool"): max_pool,
}
