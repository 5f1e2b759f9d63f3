"""By which powers of two channels were scaled before a model was quantised.

Equalisation and smoothing move scales of channels between layers, always powers of two. So what a
quantised layer reads and makes is that of the float layer times such factors, but for rounding,
and its weight is the float one divided by the former and times the latter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.taps import Feed, Taps

_Moments = tuple[Array, Array]


@dataclass(frozen=True)
class ScaledValue:
    """One value of both models, whose channels lie along ``axis``, by its names there."""

    quantised: str
    original: str
    axis: int


def channel_factors(
    quantised: ir.Model, original: ir.Model, values: Iterable[ScaledValue], feeds: Iterable[Feed]
) -> dict[ScaledValue, Array]:
    """The factors [channels] of each of ``values``, from what both models make of ``feeds``.

    1 where a channel is silent. A value whose shapes differ is left out. Raises as Taps does.
    """
    wanted = tuple(dict.fromkeys(values))
    ours = Taps(quantised, [value.quantised for value in wanted])
    theirs = Taps(original, [value.original for value in wanted])
    sums: dict[ScaledValue, _Moments] = {}
    differ: set[ScaledValue] = set()
    for feed in feeds:
        made, meant = ours(feed), theirs(feed)
        for value in wanted:
            moments = _moments(made[value.quantised], meant[value.original], value.axis)
            if moments is None:
                differ.add(value)
                continue
            old = sums.get(value, (np.zeros(()), np.zeros(())))
            sums[value] = (old[0] + moments[0], old[1] + moments[1])
    return {value: _powers(*found) for value, found in sums.items() if value not in differ}


def _moments(made: Array, meant: Array, axis: int) -> _Moments | None:
    """By channel the products of both, and the squares of what is meant."""
    if made.shape != meant.shape or made.ndim == 0:
        return None
    others = tuple(i for i in range(made.ndim) if i != axis % made.ndim)
    x, y = meant.astype(np.float64), made.astype(np.float64)
    return (x * y).sum(axis=others), (x * x).sum(axis=others)


def _powers(products: Array, squares: Array) -> Array:
    is_known = (products > 0) & (squares > 0)
    ratio = np.divide(products, squares, where=is_known, out=np.ones_like(products))
    return np.exp2(np.rint(np.log2(ratio)))


def spread(factors: Mapping[ScaledValue, Array], value: ScaledValue, shape: list[int]) -> Array:
    """The factors of ``value`` in ``shape``; 1 where they are not known."""
    found = factors.get(value, np.ones(1))
    return found.reshape(shape) if found.size > 1 else found.reshape([1] * len(shape))


def plausible(factors: Array, original: Array, rounded: Array, axis: int) -> Array:
    """``factors``, 1 where that brings ``original`` closer to ``rounded`` along ``axis``.

    What a channel is made of may be so small that noise decides about its factor.
    """
    if factors.size == 1:
        return factors
    others = tuple(i for i in range(original.ndim) if i != axis)
    plain, scaled = (
        np.square(one - rounded, dtype=np.float64).sum(axis=others, keepdims=True)
        for one in (original, original * factors)
    )
    return np.where(scaled < plain, factors, 1.0)
