"""What a transposed convolution reads, as rows of a matrix: its output is rows times weights.

The output at place p is the sum over the kernel's places k of what the input has at
(p + pad - k * dilation) / stride, where that is a whole number and inside (ONNX, ConvTranspose).
"""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np

from trimton.transforms.graph.edit import Array
from trimton.transforms.prune.refit.window import Window, window_of
from trimton.transforms.prune.ties import Layer


def has_known_window(layer: Layer) -> bool:
    """Whether pads and size of the output follow from the attributes that window_of knows."""
    attributes = layer.node.attributes
    return (
        attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and "output_shape" not in attributes
    )


def output_sizes(layer: Layer, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The spatial sizes of the output for an input of spatial ``sizes``."""
    window = window_of(layer, sizes)
    extra = layer.node.attributes.get_ints("output_padding", [0] * len(sizes)) or ()
    return tuple(
        stride * (size - 1) + more + (kernel - 1) * dilation + 1 - sum(pads)
        for size, more, kernel, stride, dilation, pads in zip(
            sizes, extra, window.kernel, window.strides, window.dilations, window.pads, strict=True
        )
    )


def transposed_patches(layer: Layer, activation: Array, chosen: Array) -> Array:
    """[samples, chosen places of the output, channels, kernel places] of ``activation``."""
    sizes = activation.shape[2:]
    window = window_of(layer, sizes)
    sources = _sources(window, sizes, output_sizes(layer, sizes), chosen)
    flat = activation.reshape(*activation.shape[:2], -1)
    with_zero = np.concatenate([flat, np.zeros_like(flat[:, :, :1])], axis=2)
    return with_zero[:, :, sources].transpose(0, 2, 1, 3)


def _sources(
    window: Window, sizes: tuple[int, ...], out_sizes: tuple[int, ...], chosen: Array
) -> Array:
    """The place of the input behind each place and kernel place; one past the end for none."""
    places = np.stack(np.unravel_index(chosen, out_sizes))  # [axes, places]
    kernel = np.array(list(product(*map(range, window.kernel)))).T  # [axes, kernel places]
    kernel = kernel * np.array(window.dilations)[:, None]
    begins = np.array([begin for begin, _ in window.pads])[:, None, None]
    shifted = places[:, :, None] + begins - kernel[:, None, :]
    strides = np.array(window.strides)[:, None, None]
    at = shifted // strides
    limits = np.array(sizes)[:, None, None]
    is_there = ((shifted % strides == 0) & (at >= 0) & (at < limits)).all(axis=0)
    inside = tuple(np.clip(at, 0, limits - 1))
    return np.where(is_there, np.ravel_multi_index(inside, sizes), prod(sizes))
