"""The two half-precision formats, and what they keep of an array.

Sources: IEEE 754-2019 (binary16); Kalamkar et al. 2019, "A Study of BFLOAT16 for Deep Learning
Training", arXiv:1905.12322.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array


@dataclass(frozen=True)
class HalfFormat:
    """A format of 16 bits: ``digits`` of the significand, its ``largest`` finite number."""

    dtype: ir.DataType
    digits: int
    largest: float

    @property
    def name(self) -> str:
        """The format's name as ONNX writes it, in small letters."""
        return self.dtype.name.lower()

    @property
    def type_text(self) -> str:
        """The tensor type as ONNX's operator schemas write it."""
        return f"tensor({self.name})"

    @property
    def rounding(self) -> float:
        """The largest relative error of a number that is neither too large nor too small."""
        return 2.0**-self.digits

    @property
    def largest_exact_integer(self) -> int:
        """All whole numbers up to this one are kept exactly."""
        return 1 << self.digits

    def rounded(self, array: Array) -> Array:
        """``array`` in this format; what is too large becomes infinite."""
        with np.errstate(over="ignore"):
            values: Array = array.astype(self.dtype.numpy())
        return values

    def obstacle(self, array: Array, *, each_counts: bool) -> str | None:
        """Why ``array`` (float32) must not be stored in this format; None if it may.

        Its errors are judged together, or with ``each_counts`` one by one, as for divisors: one
        that becomes zero spoils all.
        """
        kept = self.rounded(array).astype(np.float32)
        finite = np.isfinite(array)
        if not np.isfinite(kept[finite]).all():
            largest = float(np.abs(array[finite]).max())
            return f"holds {largest:.3g}, and {self.name} ends at {self.largest:.5g}"
        old, new = array[finite].astype(np.float64), kept[finite].astype(np.float64)
        error, size = np.abs(new - old), np.abs(old)
        allowed = 2 * self.rounding
        if each_counts:
            is_lost = error > allowed * size
        else:
            is_lost = np.asarray(np.square(error).sum() > allowed**2 * np.square(size).sum())
        if not is_lost.any():
            return None
        smallest = float(size[(error > allowed * size) & (size > 0)].min())
        return f"holds numbers too small for {self.name}, such as {smallest:.3g}"


_ALL = (
    HalfFormat(ir.DataType.FLOAT16, digits=11, largest=65504.0),
    HalfFormat(ir.DataType.BFLOAT16, digits=8, largest=float.fromhex("0x1.fep127")),
)
FORMATS: Mapping[str, HalfFormat] = {form.name: form for form in _ALL}
