"""Encoding: how the floats of one tensor become integers, and back.

``q = clip(round_half_even(x / scale) + zero_point, low, high)``, ``x' = (q - zero_point) * scale``.
Source: ONNX operators QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]

# Integer type -> the smallest and the largest number it holds.
LIMITS = {
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT8: (-128, 127),
    ir.DataType.INT32: (-(2**31), 2**31 - 1),
}


@dataclass(frozen=True)
class Encoding:
    """The scale and zero point of a tensor: scalars, or vectors along ``axis``.

    ``scale`` is float32 and above zero, ``zero_point`` of ``dtype``. ``low`` and ``high`` bound the
    integers in use; None means those of the type. The range always holds 0.0 exactly.
    """

    dtype: ir.DataType
    scale: Array
    zero_point: Array
    axis: int | None = None
    low: int | None = None
    high: int | None = None

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest integer in use."""
        low, high = LIMITS[self.dtype]
        return (low if self.low is None else self.low, high if self.high is None else self.high)

    def quantise(self, values: Array) -> Array:
        """Integers of ``dtype``, the shape of ``values``."""
        low, high = self.limits
        scale, zero_point = self._along(values.ndim)
        steps = np.rint(values / scale) + zero_point.astype(np.float64)
        integers: Array = np.clip(steps, low, high).astype(self.dtype.numpy())
        return integers

    def dequantise(self, integers: Array) -> Array:
        """Floats (float32), the shape of ``integers``."""
        scale, zero_point = self._along(integers.ndim)
        values: Array = (integers.astype(np.int64) - zero_point.astype(np.int64)) * scale
        return values.astype(np.float32)

    def _along(self, ndim: int) -> tuple[Array, Array]:
        if self.axis is None:
            return self.scale, self.zero_point
        shape = [1] * ndim
        shape[self.axis] = -1
        return self.scale.reshape(shape), self.zero_point.reshape(shape)
