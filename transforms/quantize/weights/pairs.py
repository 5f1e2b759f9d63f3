"""Weights whose products never saturate where a kernel adds two of them in 16 bits.

Processors without 8-bit dot products multiply unsigned activations with signed weights by
``vpmaddubsw``, which adds each two neighbouring products, from even places, in int16 and
saturates. With activations up to 255 the sum fits exactly if the weights of one sign in a pair
add up to at most 128 steps: 255 * 128 = 32640. Weights of opposite signs cannot saturate.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, PMADDUBSW.
"""

from __future__ import annotations

import numpy as np

from trimton.transforms.quantize.encoding import Array

PAIR_LIMIT = 128
WEIGHT_LIMIT = 127


def round_to_pairs(steps: Array) -> Array:
    """The integers closest to ``steps`` [rows, terms] of which no pair saturates.

    Closest in squared error, within -127 ... 127; floats of whole numbers, the shape of ``steps``.
    """
    rounded: Array = np.clip(np.rint(steps), -WEIGHT_LIMIT, WEIGHT_LIMIT)
    even = steps.shape[1] // 2 * 2
    first, second = rounded[:, 0:even:2], rounded[:, 1:even:2]
    is_over = (first * second > 0) & (np.abs(first + second) > PAIR_LIMIT)
    if is_over.any():
        signs = np.sign(first[is_over])
        a, b = np.abs(steps[:, 0:even:2][is_over]), np.abs(steps[:, 1:even:2][is_over])
        # On the line a + b = 128 the squared error is a parabola around this point.
        closest = np.clip(np.rint((PAIR_LIMIT + a - b) / 2), 1, WEIGHT_LIMIT)
        first[is_over] = signs * closest
        second[is_over] = signs * (PAIR_LIMIT - closest)
    return rounded


def saturating_pairs(integers: Array) -> int:
    """How many pairs of ``integers`` [rows, terms] can saturate."""
    wide = integers.astype(np.int64)
    even = wide.shape[1] // 2 * 2
    first, second = wide[:, 0:even:2], wide[:, 1:even:2]
    return int(((first * second > 0) & (np.abs(first + second) > PAIR_LIMIT)).sum())
