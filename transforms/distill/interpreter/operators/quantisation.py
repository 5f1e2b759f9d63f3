"""Quantisation with straight-through gradients (Bengio et al., 2013; Esser et al., 2020).

A quantised value stays floating point here: whole numbers that carry gradients. Rounding passes
them on, clamping passes those of values within the bounds, and a scale gets its own as in learned
step size quantisation. Constants that are stored as integers are plain numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import torch
from torch import Tensor

from trimton.transforms.distill.interpreter.node import Kernel, NodeView, Results
from trimton.transforms.distill.interpreter.operators.table import Builder

_BOUNDS: Mapping[ir.DataType, tuple[int, int]] = {
    ir.DataType.INT4: (-8, 7),
    ir.DataType.INT8: (-128, 127),
    ir.DataType.INT16: (-(2**15), 2**15 - 1),
    ir.DataType.UINT4: (0, 15),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.UINT16: (0, 2**16 - 1),
}


def _rounded(x: Tensor) -> Tensor:
    """x rounded, with the gradient of x."""
    return x + (x.detach().round() - x.detach())


def _spread(parameter: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """A scale or zero point for every element of x: one, one by index of ``axis``, or by block."""
    if parameter.numel() == 1:
        return parameter.reshape(())
    if block:
        return parameter.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    return parameter.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


def quantize_linear(view: NodeView) -> Kernel:
    """clamp(round(x / scale) + zero point), as whole floating-point numbers."""
    axis, block = view.integer("axis", 1), view.integer("block_size", 0)
    low, high = _BOUNDS[_quantised_type(view)]

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        steps = _rounded(x / _spread(scale, x, axis, block))
        if zero is not None:
            steps = steps + _spread(zero, x, axis, block).to(x.dtype)
        return steps.clamp(low, high)

    return run


def _quantised_type(view: NodeView) -> ir.DataType:
    zero = view.node.inputs[2] if view.has(2) else None
    if zero is not None and zero.dtype is not None:
        return zero.dtype
    code = view.integer("output_dtype", 0)
    return ir.DataType(code) if code else view.node.outputs[0].dtype or ir.DataType.UINT8


def dequantize_linear(view: NodeView) -> Kernel:
    """(x - zero point) * scale."""
    axis, block = view.integer("axis", 1), view.integer("block_size", 0)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        steps = x.to(scale.dtype)
        if zero is not None:
            steps = steps - _spread(zero, x, axis, block).to(scale.dtype)
        return steps * _spread(scale, x, axis, block)

    return run


def dynamic_quantize_linear(_: NodeView) -> Kernel:
    """uint8 steps with the scale and zero point that fit the range of x and 0."""

    def run(x: Tensor) -> Results:
        low = torch.clamp(x.detach().min(), max=0.0)
        high = torch.clamp(x.detach().max(), min=0.0)
        scale = (high - low) / 255.0
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        zero = (-low / scale).clamp(0, 255).round()
        return (_rounded(x / scale) + zero).clamp(0, 255), scale, zero.to(torch.uint8)

    return run


OPERATORS: Mapping[tuple[str, str], Builder] = {
    ("", "DequantizeLinear"): dequantize_linear,
    ("", "DynamicQuantizeLinear"): dynamic_quantize_linear,
    ("", "QuantizeLinear"): quantize_linear,
}
