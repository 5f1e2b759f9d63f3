"""Integers below 8 bits, packed into bytes as ONNX Runtime's block-wise operators read them.

Neighbours along the last axis share a byte, the first of them in its lowest bits.
"""

from __future__ import annotations

import numpy as np

from trimton.transforms.graph.edit import Array


def pack(integers: Array, bits: int) -> Array:
    """``integers`` uint8 [..., n], each below 2 ** bits, as bytes [..., ceil(n * bits / 8)].

    ``bits`` is 2, 4 or 8; the last byte is filled up with zeros.
    """
    each = 8 // bits
    missing = -integers.shape[-1] % each
    widths = [(0, 0)] * (integers.ndim - 1) + [(0, missing)]
    together = np.pad(integers, widths).reshape(*integers.shape[:-1], -1, each)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    packed: Array = np.bitwise_or.reduce(together << shifts, axis=-1).astype(np.uint8)
    return packed


def unpack(packed: Array, bits: int, count: int) -> Array:
    """The inverse of ``pack``: uint8 [..., count]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    mask = np.uint8((1 << bits) - 1)
    apart = (packed[..., None] >> shifts) & mask
    flat: Array = apart.reshape(*packed.shape[:-1], -1)
    return flat[..., :count]
