"""Rows of weights as unsigned integers of few bits, each block of neighbours with its own scale.

``w' = (q - zero_point) * scale``; without zero points of its own a format has the middle of its
range for all. Scales are those of least squared error among some that hold the largest weight or
cut it off, refitted to the integers that they gave.

Source: ONNX Runtime, operator com.microsoft.MatMulNBits; Dettmers and Zettlemoyer 2023, "The case
for 4-bit precision", arXiv:2212.09720.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimton.transforms.graph.edit import Array

# Shares of a block's range that a scale may span; the first holds all of it.
_SHARES: tuple[float, ...] = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7)
# Numbers that are tried at once: they stay in the cache of a core.
_CHUNK = 1 << 16


@dataclass(frozen=True)
class BlockFormat:
    """``bits`` of one weight, ``block`` neighbours along a row with one scale and zero point.

    A symmetric format stores no zero points: 0 is the middle of the integers.
    """

    bits: int
    block: int
    is_symmetric: bool = True

    @property
    def largest(self) -> int:
        """The largest integer; the smallest is 0."""
        return (1 << self.bits) - 1

    @property
    def middle(self) -> int:
        """The zero point of blocks without one of their own."""
        return 1 << (self.bits - 1)


@dataclass(frozen=True)
class Blocks:
    """Weights of ``terms`` in a row: ``integers`` uint8 [rows, blocks, block], ``scales`` float32
    [rows, blocks], ``zero_points`` uint8 [rows, blocks]. The last block may be filled up."""

    terms: int
    integers: Array
    scales: Array
    zero_points: Array

    def dequantised(self) -> Array:
        """What the integers stand for, float32 [rows, terms]."""
        steps = self.integers.astype(np.float32) - self.zero_points[..., None]
        flat: Array = (steps * self.scales[..., None]).reshape(len(steps), -1)
        return flat[:, : self.terms]


def nearest_blocks(rows: Array, form: BlockFormat) -> Blocks:
    """``rows`` [rows, terms] with scales that just hold each block, rounded to the nearest."""
    return _encoded(rows, form, ((1.0, 1.0),), is_refitted=False)


def closest_blocks(rows: Array, form: BlockFormat) -> Blocks:
    """``rows`` [rows, terms] with scales (and zero points) of least squared error."""
    shares = tuple((below, above) for below in _SHARES for above in _SHARES)
    return _encoded(rows, form, shares, is_refitted=True)


def _encoded(
    rows: Array, form: BlockFormat, shares: tuple[tuple[float, float], ...], *, is_refitted: bool
) -> Blocks:
    count, terms = rows.shape
    width = -(-terms // form.block)
    padded = np.zeros((count, width * form.block), np.float32)
    padded[:, :terms] = rows
    blocks = padded.reshape(-1, form.block)
    integers = np.empty(blocks.shape, np.uint8)
    scales, zeros = np.empty(len(blocks), np.float32), np.empty(len(blocks), np.uint8)
    step = max(1, _CHUNK // form.block)
    for start in range(0, len(blocks), step):
        part = slice(start, start + step)
        found = _best(blocks[part], form, shares)
        if is_refitted:
            found = _Try.of(found.values, found.refitted(), found.zero, form.largest)
        integers[part], scales[part], zeros[part] = found.integers, found.scale, found.zero
    shape = (count, width)
    integers = integers.reshape(count, -1)
    integers[:, terms:] = 0
    return Blocks(
        terms, integers.reshape(*shape, form.block), scales.reshape(shape), zeros.reshape(shape)
    )


@dataclass(frozen=True)
class _Try:
    """Integers (floats) [blocks, block] of ``values`` for a scale and zero point [blocks]."""

    values: Array
    integers: Array
    scale: Array
    zero: Array

    @classmethod
    def of(cls, values: Array, scale: Array, zero: Array, largest: int) -> _Try:
        is_usable = np.abs(scale) > np.finfo(np.float32).tiny
        inverse = np.divide(np.float32(1), scale, where=is_usable, out=np.zeros_like(scale))
        # Halves go up, as in ONNX Runtime's own quantiser.
        steps = np.floor(values * inverse[:, None] + zero[:, None] + np.float32(0.5))
        return cls(values, np.clip(steps, 0, largest), scale, zero)

    def errors(self) -> Array:
        difference = (self.integers - self.zero[:, None]) * self.scale[:, None] - self.values
        squares: Array = np.einsum("ij,ij->i", difference, difference)
        return squares

    def refitted(self) -> Array:
        """The scales of least squared error for these integers."""
        steps = self.integers - self.zero[:, None]
        squares = np.einsum("ij,ij->i", steps, steps)
        products = np.einsum("ij,ij->i", steps, self.values)
        scale: Array = np.divide(products, squares, where=squares > 0, out=self.scale.copy())
        return scale


def _best(values: Array, form: BlockFormat, shares: tuple[tuple[float, float], ...]) -> _Try:
    best: _Try | None = None
    least = np.full(len(values), np.inf, np.float32)
    for scale, zero in _candidates(values, form, shares):
        tried = _Try.of(values, scale, zero, form.largest)
        errors = tried.errors()
        is_better = errors < least
        least = np.where(is_better, errors, least)
        if best is None:
            best = tried
            continue
        wide = is_better[:, None]
        best = _Try(
            values,
            np.where(wide, tried.integers, best.integers),
            np.where(is_better, tried.scale, best.scale),
            np.where(is_better, tried.zero, best.zero),
        )
    if best is None:
        raise ValueError("no scale to try")
    return best


def _candidates(
    values: Array, form: BlockFormat, shares: tuple[tuple[float, float], ...]
) -> list[tuple[Array, Array]]:
    """Scales and zero points to try; a symmetric block may turn its range around."""
    low = np.minimum(values.min(axis=1, initial=0), 0)
    high = np.maximum(values.max(axis=1, initial=0), 0)
    if not form.is_symmetric:
        return [_affine(low * below, high * above, form) for below, above in shares]
    # The integers reach one step further down than up: the larger end goes there.
    end = np.where(np.abs(high) > np.abs(low), high, low)
    middle = np.full(len(values), form.middle, np.float32)
    signs = (1.0,) if len(shares) == 1 else (1.0, -1.0)
    factors = [sign * share for share, other in shares if share == other for sign in signs]
    return [(end * np.float32(factor) / -form.middle, middle) for factor in factors]


def _affine(low: Array, high: Array, form: BlockFormat) -> tuple[Array, Array]:
    scale = (high - low) / np.float32(form.largest)
    is_usable = scale > np.finfo(np.float32).tiny
    zero = np.divide(-low, scale, where=is_usable, out=np.zeros_like(scale))
    return scale, np.clip(np.rint(zero), 0, form.largest)
