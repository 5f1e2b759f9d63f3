"""Weights as 8-bit integers: scales of least squared error, found by trying them.

A scale that cuts off the largest weights can lose less than it gains for all others; under a
bound on pairs a larger scale does. Each output channel takes the best of a grid of scales around
that of its largest weight, then the best of a finer grid around that.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from trimton.transforms.quantize.encoding import Array, Encoding
from trimton.transforms.quantize.sites import WeightSite
from trimton.transforms.quantize.weights.pairs import WEIGHT_LIMIT, round_to_pairs
from trimton.transforms.quantize.weights.rows import row_order

# Factors on the scale that just holds the largest weight, 1 among them. No pair of weights needs
# more than 2.
_CLIPPING = np.geomspace(0.5, 1.0, 20)
_PAIRS = np.geomspace(0.5, 2.0, 37)
_FINER = 9
# Elements that are tried at once: they stay in the cache of a core.
_CHUNK = 1 << 16


def encode_weight(
    weight: Array, site: WeightSite, smallest_scale: Array | None = None
) -> tuple[Array, Encoding]:
    """Integers of ``weight`` (int8, its shape) and their encoding: symmetric, -127 ... 127.

    With ``site.kernel`` no pair of integers saturates in that kernel. ``smallest_scale``
    (scalar, or one for each output channel) is a lower bound, such as a bias in int32 needs.
    """
    order = row_order(site, weight.shape)
    rows = order.rows(weight.astype(np.float32))
    is_paired = site.kernel is not None
    channels = 1 if site.axis is None else weight.shape[site.axis]
    scale = best_scales(rows, channels, is_paired=is_paired, smallest=smallest_scale)
    integers = rounded(rows, _spread(scale, len(rows)), is_paired=is_paired)
    if site.axis is None:
        scale = scale.reshape(())
    zero_point = np.zeros(scale.shape, np.int8)
    axis = None if site.axis is None else site.axis % weight.ndim
    encoding = Encoding(
        ir.DataType.INT8, scale, zero_point, axis, low=-WEIGHT_LIMIT, high=WEIGHT_LIMIT
    )
    return order.weight(integers.astype(np.int8)), encoding


def rounded(rows: Array, scale: Array, *, is_paired: bool) -> Array:
    """The integers (as floats) closest to ``rows`` [outputs, terms] for ``scale`` [outputs]."""
    steps = rows / scale[:, None]
    if is_paired:
        return round_to_pairs(steps)
    integers: Array = np.clip(np.rint(steps), -WEIGHT_LIMIT, WEIGHT_LIMIT)
    return integers


def best_scales(
    rows: Array, channels: int, *, is_paired: bool, smallest: Array | None = None
) -> Array:
    """Scales of least squared error, float32 [channels], for ``rows`` [outputs, terms].

    Outputs share a scale where there are fewer channels than rows: only one for all.
    """
    largest = np.abs(rows).max(axis=1, initial=0).reshape(channels, -1).max(axis=1)
    base = largest.astype(np.float64) / WEIGHT_LIMIT
    floor = np.broadcast_to(np.asarray(0.0 if smallest is None else smallest), base.shape)
    base = np.maximum(_without_zeros(base), floor)
    factors = _PAIRS if is_paired else _CLIPPING
    grid = np.maximum(base * factors[:, None], floor)
    best = _best(rows, grid, is_paired=is_paired)
    step = factors[1] / factors[0]
    finer = np.geomspace(1 / step, step, _FINER)
    grid = np.maximum(best * finer[:, None], floor)
    return _best(rows, grid, is_paired=is_paired).astype(np.float32)


def _best(rows: Array, grid: Array, *, is_paired: bool) -> Array:
    """For each channel the best of the scales ``grid`` [candidates, channels]."""
    grid = grid.astype(np.float32)
    errors = np.zeros(grid.shape)
    for part in _chunks(rows):
        for number, scales in enumerate(grid):
            scale = _spread(scales, len(rows))[part]
            error = rounded(rows[part], scale, is_paired=is_paired) * scale[:, None] - rows[part]
            squares = np.einsum("ij,ij->i", error, error, dtype=np.float64)
            if len(scales) == 1:
                errors[number] += squares.sum()
            else:
                errors[number, part] += squares
    choice = np.argmin(errors, axis=0)
    best: Array = grid[choice, np.arange(grid.shape[1])].astype(np.float64)
    return best


def _chunks(rows: Array) -> Iterator[slice]:
    count = max(1, _CHUNK // max(1, rows.shape[1]))
    for start in range(0, len(rows), count):
        yield slice(start, start + count)


def _spread(scale: Array, outputs: int) -> Array:
    """One scale for each output."""
    return np.broadcast_to(scale, (outputs,))


def _without_zeros(base: Array) -> Array:
    """``base`` with channels of zeros like the finest other: their bias stays exact."""
    is_zero = base < np.finfo(np.float32).tiny
    finest = base[~is_zero].min() if not is_zero.all() else 1.0 / WEIGHT_LIMIT
    return np.where(is_zero, finest, base)
