"""Moving scales of channels from one layer into another, without a change of the outputs.

Scales are powers of two: they change exponents only, so that nothing is rounded, and the network
computes the same numbers as before, to the bit, short of overflow.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, Editor, constant_array
from trimton.transforms.linear.layers import LinearLayer

# Scales beyond these are left to others: weights must stay far from the ends of float32.
_LARGEST_EXPONENT = 12


def power_of_two(scales: Array) -> Array:
    """The powers of two closest to ``scales`` (positive) by ratio; 1 where one is not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        exponents = np.rint(np.log2(scales))
    usable = np.where(np.isfinite(exponents), exponents, 0.0)
    powers: Array = np.exp2(np.clip(usable, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
    return powers


def input_ranges(layer: LinearLayer) -> Array:
    """The largest weight that each channel read meets, [channels of all groups]."""
    ranges: Array = np.abs(_by_channel(layer)).max(axis=(2, 3)).ravel()
    return ranges


def output_ranges(layer: LinearLayer) -> Array:
    """The largest weight of each channel made, [outputs of all groups]."""
    ranges: Array = np.abs(layer.matrices()).max(axis=1).ravel()
    return ranges


def scale_inputs(layer: LinearLayer, scales: Array) -> None:
    """Multiply the weights of each channel read by its scale, in place."""
    weights = _by_channel(layer)
    factors = scales.reshape(weights.shape[:2])[:, :, None, None]
    layer.set_matrices((weights * factors).reshape(layer.matrices().shape))


def scale_outputs(layer: LinearLayer, scales: Array) -> None:
    """Multiply the weights of each channel made by its scale, in place; not its bias."""
    weights = layer.matrices()
    layer.set_matrices(weights * scales.reshape(len(weights), 1, -1))


def scale_vector(node: ir.Node, index: int, scales: Array, editor: Editor) -> None:
    """Multiply the constant input ``index`` of ``node``, one number or one for each channel."""
    old = constant_array(node.inputs[index])
    if old is None:
        raise ValueError(f"input {index} of {node.name} is no constant")
    flat = np.broadcast_to(old.reshape(-1), scales.shape) * scales
    shape = old.shape if old.size == scales.size else scales.shape
    editor.set_constant(node, index, flat.reshape(shape).astype(old.dtype), f"{node.name}_scaled")


def _by_channel(layer: LinearLayer) -> Array:
    """The weights as [groups, channels of a group, places of the kernel, outputs of a group]."""
    weights = layer.matrices()
    places = int(np.prod(layer.kernel))
    return weights.reshape(len(weights), -1, places, weights.shape[2])
