"""Encodings that other nodes rely on: inside the bounds of an activation, rescaled, for a bias."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trimton.transforms.quantize.encoding import Array, Encoding

# A bias may use this much of int32: the sums are added to it.
_BIAS_LIMIT = 2**30


def within(encoding: Encoding, bounds: tuple[float, float]) -> Encoding:
    """``encoding``, its scale a little smaller where its range would end outside ``bounds``.

    The runtime drops an activation function only if no integer lies beyond where it cuts.
    """
    low, high = encoding.limits
    zero_point = int(encoding.zero_point)
    largest = min(
        _steps(bound, limit - zero_point) for bound, limit in zip(bounds, (low, high), strict=True)
    )
    scale = encoding.scale
    while float(scale) > largest:
        scale = np.asarray(np.nextafter(np.float32(min(float(scale), largest)), np.float32(0)))
    return replace(encoding, scale=scale)


def rescaled(encoding: Encoding, factor: float) -> Encoding:
    """The encoding of ``factor`` times the numbers of ``encoding``, in the same integers."""
    return replace(encoding, scale=np.asarray(encoding.scale * np.float32(factor), np.float32))


def smallest_weight_scale(bias: Array, activation: Encoding) -> Array:
    """The smallest scales of weights, [channels], with which ``bias`` fits into int32."""
    return np.abs(bias).reshape(-1).astype(np.float64) / (_BIAS_LIMIT * float(activation.scale))


def _steps(bound: float, integers: int) -> float:
    """The largest scale with which ``integers`` steps stay inside ``bound``."""
    return abs(bound / integers) if integers else float("inf")
