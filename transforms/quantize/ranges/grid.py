"""From a range to an encoding: the grid of numbers that integers stand for."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from trimton.transforms.quantize.encoding import LIMITS, Array, Encoding


def range_encoding(low: float, high: float, dtype: ir.DataType, symmetric: bool) -> Encoding:
    """The encoding of ``dtype`` (8 bits) that covers [low, high] and zero, which stays exact.

    A ``symmetric`` one has its zero point in the middle of the type.
    """
    scale, zero_point = grid(np.asarray(low), np.asarray(high), dtype, symmetric)
    return Encoding(dtype, scale, zero_point.astype(dtype.numpy()))


def grid(low: Array, high: Array, dtype: ir.DataType, symmetric: bool) -> tuple[Array, Array]:
    """Scales (float32) and zero points (float64) for ranges of any shape; see range_encoding."""
    bottom, top = LIMITS[dtype]
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    if symmetric:
        scale = _scale(np.maximum(-low, high) / ((top - bottom) // 2))
        return scale, np.full(scale.shape, (top + bottom + 1) // 2, np.float64)
    scale = _scale((high - low) / (top - bottom))
    return scale, np.clip(np.rint(bottom - low / scale.astype(np.float64)), bottom, top)


def _scale(step: Array) -> Array:
    return np.where(step > np.finfo(np.float32).tiny, step, 1.0).astype(np.float32)
