"""The window that a convolution slides over its input: kernel, strides, dilations and pads."""

from __future__ import annotations

from dataclasses import dataclass

from trimton.transforms.graph.edit import constant
from trimton.transforms.prune.ties import Layer


@dataclass(frozen=True)
class Window:
    """Sizes along each spatial axis; ``pads`` are (begin, end)."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]


def window_of(layer: Layer, sizes: tuple[int, ...]) -> Window:
    """The window of a convolution on an input of these spatial ``sizes``."""
    node, tensor = layer.node, constant(layer.weight)
    kernel = () if tensor is None else tuple(tensor.shape.numpy()[2:])
    axes = len(kernel)
    strides = tuple(node.attributes.get_ints("strides", [1] * axes) or ())
    dilations = tuple(node.attributes.get_ints("dilations", [1] * axes) or ())
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max(0, (-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size)
            for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True)
        ]
        small = [total // 2 for total in totals]
        large = [total - half for total, half in zip(totals, small, strict=True)]
        begins, ends = (small, large) if auto == "SAME_UPPER" else (large, small)
        return Window(kernel, strides, dilations, tuple(zip(begins, ends, strict=True)))
    given = list(node.attributes.get_ints("pads", [0] * 2 * axes) or ())
    pads = [0] * 2 * axes if auto == "VALID" else given
    return Window(kernel, strides, dilations, tuple(zip(pads[:axes], pads[axes:], strict=True)))
