"""Other roundings must not make sums saturate that did not before."""

from __future__ import annotations

import numpy as np

from trimton.transforms.graph.edit import Array
from trimton.transforms.quantize.weights.pairs import PAIR_LIMIT
from trimton.transforms.quantize.weights.rows import RowOrder


def without_new_saturation(before: Array, after: Array, order: RowOrder) -> Array:
    """``after``, with both integers of a pair as ``before`` where only they now saturate.

    Pairs are neighbours in ``order``, that of a kernel which adds two products in 16 bits. So the
    bound that a target sets holds after it if it held before.
    """
    old, new = order.rows(before.astype(np.int64)), order.rows(after.astype(np.int64))
    even = old.shape[1] // 2 * 2
    is_new = np.zeros(old.shape, bool)
    pairs = _saturates(new[:, :even]) & ~_saturates(old[:, :even])
    is_new[:, :even] = np.repeat(pairs, 2, axis=1)
    return order.weight(np.where(is_new, old, new)).astype(after.dtype)


def _saturates(rows: Array) -> Array:
    first, second = rows[:, 0::2], rows[:, 1::2]
    over: Array = (first * second > 0) & (np.abs(first + second) > PAIR_LIMIT)
    return over
