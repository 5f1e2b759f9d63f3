"""Weights of products and recurrent layers as int8, for kernels whose activations are uint8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array
from trimton.transforms.quantize.sites import WeightSite
from trimton.transforms.quantize.weights import encode_weight


@dataclass(frozen=True)
class IntegerRows:
    """``integers`` int8 [rows, terms]; ``scale`` float32 [rows], or [] where all rows share it."""

    integers: Array
    scale: Array

    def dequantised(self) -> Array:
        """What the integers stand for, float32 [rows, terms]."""
        values: Array = self.integers * np.broadcast_to(self.scale, len(self.integers))[:, None]
        return values.astype(np.float32)


def integer_rows(rows: Array, *, per_channel: bool, saturates: bool) -> IntegerRows:
    """``rows`` [outputs, terms], which a kernel sums along the terms, as symmetric integers.

    With ``saturates`` no two neighbouring terms overflow 16 bits (see weights.pairs).
    """
    site = WeightSite(
        layer="",
        value="",
        axis=0 if per_channel else None,
        dtype=ir.DataType.INT8,
        kernel="matmul_transposed" if saturates else None,
    )
    integers, encoding = encode_weight(rows, site)
    return IntegerRows(integers, encoding.scale)
