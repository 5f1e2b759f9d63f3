"""What a linear layer reads, as rows of a matrix: its output is these rows times its weights.

A convolution reads one patch for each place of its output (im2col), a matrix product one row.
Places are sampled where a sample has more of them than a fit needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, constant
from trimton.transforms.prune.refit.window import window_of
from trimton.transforms.prune.ties import Layer

# A fit of n features sees about this many rows for each of them.
_ROWS_PER_FEATURE = 32


@dataclass(frozen=True)
class Rows:
    """``features`` [rows, features] of one batch, and ``select``, which takes the same places
    out of an array of the layer's output shape: [rows, outputs]."""

    features: Array
    select: Callable[[Array], Array]


def is_linear(layer: Layer) -> bool:
    """Whether the output of ``layer`` is its features times a constant matrix, plus a constant."""
    rule = _RULES.get(layer.node.op_type)
    return rule is not None and constant(layer.weight) is not None and rule.fits(layer)


def weight_matrix(layer: Layer) -> Array:
    """The weights as [features, outputs]: input channels first, then the kernel's places."""
    tensor = constant(layer.weight)
    if tensor is None or layer.inputs is None:
        raise ValueError("the layer is not linear")
    moved = np.moveaxis(tensor.numpy(), (layer.inputs, layer.outputs), (0, -1))
    matrix: Array = moved.reshape(-1, moved.shape[-1])
    return matrix * _alpha(layer.node)


def as_weight(layer: Layer, matrix: Array) -> Array:
    """The inverse of weight_matrix: ``matrix`` in the shape and type of the layer's weight."""
    tensor = constant(layer.weight)
    if tensor is None or layer.inputs is None:
        raise ValueError("the layer is not linear")
    old = tensor.numpy()
    shape = np.moveaxis(old, (layer.inputs, layer.outputs), (0, -1)).shape
    moved = (matrix / _alpha(layer.node)).reshape(shape)
    return np.moveaxis(moved, (0, -1), (layer.inputs, layer.outputs)).astype(old.dtype)


def feature_channels(layer: Layer) -> Array:
    """For every feature the input channel that it belongs to, [features]."""
    tensor = constant(layer.weight)
    if tensor is None or layer.inputs is None:
        raise ValueError("the layer is not linear")
    shape = tensor.shape.numpy()
    channels = shape[layer.inputs]
    kernel = prod(shape) // (channels * shape[layer.outputs])
    return np.repeat(np.arange(channels), kernel)


def rows(layer: Layer, activation: Array, places: int, rng: np.random.Generator) -> Rows:
    """The rows of one batch; at most ``places`` of each sample, at random."""
    return _RULES[layer.node.op_type].rows(layer, activation, places, rng)


def places_for(layer: Layer, samples: Mapping[str, Array]) -> int:
    """How many places of each sample are needed for enough rows."""
    count = max(1, min(len(array) for array in samples.values()))
    return max(1, -(-_ROWS_PER_FEATURE * len(feature_channels(layer)) // count))


def _product_rows(layer: Layer, activation: Array, places: int, rng: np.random.Generator) -> Rows:
    """Gemm, MatMul: the last axis is contracted, everything before it makes rows."""
    flat = activation.reshape(-1, activation.shape[-1])
    wanted = places * len(activation) if activation.ndim > 2 else len(flat)
    chosen = _choose(len(flat), wanted, rng)
    return Rows(flat[chosen], lambda array: array.reshape(-1, array.shape[-1])[chosen])


def _patches(layer: Layer, activation: Array, places: int, rng: np.random.Generator) -> Rows:
    """Conv: one patch [channels, kernel places] for each place of the output."""
    window = window_of(layer, activation.shape[2:])
    padded = np.pad(activation, ((0, 0), (0, 0), *window.pads))
    out_shape = tuple(
        (size - (kernel - 1) * dilation - 1) // stride + 1
        for size, kernel, stride, dilation in zip(
            padded.shape[2:], window.kernel, window.strides, window.dilations, strict=True
        )
    )
    chosen = _choose(prod(out_shape), places, rng)
    corners = np.stack(np.unravel_index(chosen, out_shape)) * np.array(window.strides)[:, None]
    offsets = np.array(list(product(*map(range, window.kernel)))).T
    offsets = offsets * np.array(window.dilations)[:, None]
    coordinates = corners[:, :, None] + offsets[:, None, :]  # [axes, places, kernel]
    flat_places = np.ravel_multi_index(tuple(coordinates), padded.shape[2:])
    taken = padded.reshape(*padded.shape[:2], -1)[:, :, flat_places]
    batch, channels, count, kernel = taken.shape
    features = taken.transpose(0, 2, 1, 3).reshape(batch * count, channels * kernel)
    return Rows(features, lambda array: _places(array, chosen))


def _places(array: Array, chosen: Array) -> Array:
    """[batch, channels, places...] -> [batch * chosen, channels]."""
    taken = array.reshape(*array.shape[:2], -1)[:, :, chosen]
    flat: Array = taken.transpose(0, 2, 1).reshape(-1, array.shape[1])
    return flat


def _choose(count: int, wanted: int, rng: np.random.Generator) -> Array:
    if wanted >= count:
        return np.arange(count)
    return np.sort(rng.choice(count, wanted, replace=False))


def _alpha(node: ir.Node) -> float:
    alpha = node.attributes.get_float("alpha", 1.0) if node.op_type == "Gemm" else 1.0
    return 1.0 if alpha is None else alpha


def _is_plain_convolution(layer: Layer) -> bool:
    return layer.inputs is not None and (layer.node.attributes.get_int("group", 1) or 1) == 1


def _is_plain_product(layer: Layer) -> bool:
    """Rows of an activation times a matrix, [..., K] x [K, N] or its transposed."""
    shape = layer.weight.shape
    return (
        layer.inputs is not None
        and shape is not None
        and len(shape) == 2
        and layer.node.inputs[1] is layer.weight
        and not layer.node.attributes.get_int("transA", 0)
    )


@dataclass(frozen=True)
class _Rule:
    fits: Callable[[Layer], bool]
    rows: Callable[[Layer, Array, int, np.random.Generator], Rows]


_RULES: Mapping[str, _Rule] = {
    "Conv": _Rule(_is_plain_convolution, _patches),
    "Gemm": _Rule(_is_plain_product, _product_rows),
    "MatMul": _Rule(_is_plain_product, _product_rows),
}
