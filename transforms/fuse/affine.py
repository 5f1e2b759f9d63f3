"""Per-channel affine maps ``y = scale * x + shift``, and the operators that can take them in.

A convolution, a Gemm and a BatchNormalization are linear in their weights, so an affine map
after them is a change of weights and bias (W: weights, b: bias, s: scale, t: shift):

- Conv, with W [M, C/g, ...]:           W' = s[m] W,             b' = s b + t
- ConvTranspose, with W [C, M/g, ...]:  W' = s[group, m] W,      b' = s b + t
- Gemm, y = alpha A B + beta C:         B' = s[n] B,             C' = s (beta C) + t, beta' = 1
- MatMul in two dimensions:             becomes the Gemm with B' = s[n] B and C' = t
- BatchNormalization:                   gamma' = s gamma,        beta' = s beta + t

Sums are made in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.fuse.family import Match
from trimton.transforms.graph.edit import (
    Array,
    Editor,
    can_replace,
    constant_array,
    erase,
    input_at,
    only_consumer,
    replace_value,
)
from trimton.transforms.graph.shapes import known_dims


@dataclass(frozen=True)
class ChannelAffine:
    """``y = scale * x + shift`` along axis 1; both float64, of shape [channels] or [1]."""

    scale: Array
    shift: Array

    @property
    def is_shift_only(self) -> bool:
        """Whether the scale is 1 everywhere."""
        return bool(np.all(self.scale == 1))


# New constants by input index. A missing weight is a reason.
_Weights = Mapping[int, Array]
Absorber = Callable[[ir.Node, ChannelAffine], _Weights | str]


def _conv(node: ir.Node, affine: ChannelAffine) -> _Weights | str:
    weight, bias = _weights(node, 1), _bias(node)
    if isinstance(weight, str) or isinstance(bias, str):
        return weight if isinstance(weight, str) else str(bias)
    channels = weight.shape[0]
    scale = np.broadcast_to(affine.scale, channels)
    return _changed(
        node, affine, weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), bias, channels
    )


def _conv_transpose(node: ir.Node, affine: ChannelAffine) -> _Weights | str:
    weight, bias = _weights(node, 1), _bias(node)
    if isinstance(weight, str) or isinstance(bias, str):
        return weight if isinstance(weight, str) else str(bias)
    groups = node.attributes.get_int("group", 1) or 1
    inputs, per_group, *kernel = weight.shape
    channels = groups * per_group
    scale = np.broadcast_to(affine.scale, channels)
    grouped = weight.reshape(groups, inputs // groups, per_group, *kernel)
    scaled = grouped * scale.reshape(groups, 1, per_group, *[1] * len(kernel))
    return _changed(node, affine, scaled.reshape(weight.shape), bias, channels)


def _gemm(node: ir.Node, affine: ChannelAffine) -> _Weights | str:
    weight, bias = _weights(node, 1), _bias(node)
    if isinstance(weight, str) or isinstance(bias, str):
        return weight if isinstance(weight, str) else str(bias)
    if bias.ndim == 2 and bias.shape[0] != 1:
        return "the bias of the Gemm differs from row to row"
    is_transposed = bool(node.attributes.get_int("transB", 0))
    columns = weight.shape[0 if is_transposed else 1]
    scale = np.broadcast_to(affine.scale, columns)
    beta = node.attributes.get_float("beta", 1.0)
    weight = weight * (scale[:, None] if is_transposed else scale)
    return _changed(node, affine, weight, np.float64(beta) * bias.reshape(-1), columns)


def _matmul(node: ir.Node, affine: ChannelAffine) -> _Weights | str:
    weight = _weights(node, 1)
    if isinstance(weight, str):
        return weight
    columns = weight.shape[1]
    scale = np.broadcast_to(affine.scale, columns)
    return _changed(node, affine, weight * scale, np.zeros(1), columns)


def _batch_normalization(node: ir.Node, affine: ChannelAffine) -> _Weights | str:
    gamma, beta = _weights(node, 1), _weights(node, 2)
    if isinstance(gamma, str) or isinstance(beta, str):
        return gamma if isinstance(gamma, str) else str(beta)
    if reason := not_at_inference(node):
        return reason
    scale, shift = (np.broadcast_to(part, gamma.shape) for part in (affine.scale, affine.shift))
    return {1: gamma * scale, 2: beta * scale + shift}


ABSORBERS: Mapping[str, Absorber] = {
    "BatchNormalization": _batch_normalization,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}


def can_absorb(node: ir.Node) -> bool:
    """Whether an affine map after ``node`` can become part of it, as far as its kind goes."""
    if node.domain or node.op_type not in ABSORBERS:
        return False
    if node.op_type == "MatMul":  # elsewhere axis 1 is no channel, and two inputs no weight
        dims = [known_dims(value) for value in node.inputs]
        is_flat = all(shape is not None and len(shape) == 2 for shape in dims)
        return is_flat and constant_array(input_at(node, 1)) is not None
    return True


def absorb(producer: ir.Node, consumer: ir.Node, affine: ChannelAffine, editor: Editor) -> Match:
    """Take ``affine``, which ``consumer`` computes, into the weights of ``producer``.

    Requires that ``consumer`` reads the first output of ``producer`` and has one output.
    """
    between, output = producer.outputs[0], consumer.outputs[0]
    if only_consumer(between) is not consumer:
        return f"the output of the {producer.op_type} before it is used elsewhere too"
    weights = ABSORBERS[producer.op_type](producer, affine)
    if isinstance(weights, str):
        return weights
    with np.errstate(over="ignore"):
        rounded = {index: array.astype(_dtype(producer)) for index, array in weights.items()}
    if not all(np.isfinite(array).all() for array in rounded.values()):
        return "the fused weights would overflow"
    if not can_replace(output, between):
        return "its output cannot be renamed"
    for index, array in rounded.items():
        editor.set_constant(producer, index, array, hint=f"{between.name}_bias")
    if producer.op_type == "Gemm":
        producer.attributes.pop("beta", None)
    if producer.op_type == "MatMul":
        producer.op_type = "Gemm"
    replace_value(output, between)
    erase(consumer)
    return True


def not_at_inference(node: ir.Node) -> str | None:
    """Why the BatchNormalization ``node`` is no per-channel affine map; None if it is one."""
    if node.attributes.get_int("training_mode", 0) or any(o.name for o in node.outputs[1:]):
        return "it is in training mode"
    if not node.attributes.get_int("spatial", 1):
        return "it normalises every position by itself (spatial=0)"
    return None


def _changed(
    node: ir.Node, affine: ChannelAffine, weight: Array, bias: Array, channels: int
) -> _Weights | str:
    """The weights and the bias; where the scale is 1 the weights need no change at all."""
    shift = np.broadcast_to(affine.shift, channels)
    new: dict[int, Array] = {2: affine.scale * bias + shift}
    if not affine.is_shift_only:
        new[1] = weight
    return new


def _weights(node: ir.Node, index: int) -> Array | str:
    """Constant input ``index`` as float64, or why there is none."""
    value = input_at(node, index)
    array = constant_array(value)
    if array is not None:
        return array.astype(np.float64)
    maker = None if value is None else value.producer()
    origin = "they can be overridden" if maker is None else f"{maker.op_type} makes them"
    return f"the weights of the {node.op_type} before it are not constant: {origin}"


def _bias(node: ir.Node) -> Array | str:
    """Input 2 as float64; a zero where the node has none."""
    return np.zeros(1) if input_at(node, 2) is None else _weights(node, 2)


def _dtype(node: ir.Node) -> np.dtype[np.generic]:
    array = constant_array(input_at(node, 1))
    if array is None:
        raise ValueError("an absorbed node has constant weights")
    return array.dtype
