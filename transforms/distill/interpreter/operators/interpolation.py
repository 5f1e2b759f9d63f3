"""One axis resized: every new element is a weighted sum of a few old ones.

Places and weights follow ONNX's definition of Resize (operator sets 10 to 19).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from trimton.transforms.distill.interpreter.dtypes import Array


@dataclass(frozen=True)
class Axis:
    """One axis to be resized from ``before`` to ``after`` elements by ``scale``.

    ``region`` are the bounds of what is looked at, as shares of the axis.
    """

    before: int
    after: int
    scale: float
    region: tuple[float, float] = (0.0, 1.0)

    def source(self, coordinates: str) -> Array:
        """Where each new element stands among the old ones."""
        return _COORDINATES[coordinates](self, np.arange(self.after, dtype=np.float64))


def _corners(axis: Axis, x: Array) -> Array:
    return x * (axis.before - 1) / max(axis.after - 1, 1)


def _cropped(axis: Axis, x: Array) -> Array:
    start, end = (bound * (axis.before - 1) for bound in axis.region)
    if axis.after == 1:
        return np.full_like(x, 0.5 * (start + end))
    return start + x * (end - start) / (axis.after - 1)


def _half_pixel(axis: Axis, x: Array) -> Array:
    return (x + 0.5) / axis.scale - 0.5


def _symmetric(axis: Axis, x: Array) -> Array:
    adjustment = axis.after / (axis.before * axis.scale)
    return axis.before / 2 * (1 - adjustment) + _half_pixel(axis, x)


_COORDINATES: Mapping[str, Callable[[Axis, Array], Array]] = {
    "align_corners": _corners,
    "asymmetric": lambda axis, x: x / axis.scale,
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": lambda axis, x: _half_pixel(axis, x) if axis.after > 1 else 0.0 * x,
    "tf_crop_and_resize": _cropped,
    "tf_half_pixel_for_nn": lambda axis, x: (x + 0.5) / axis.scale,
}


@dataclass(frozen=True)
class Interpolation:
    """How a value between elements is made: the attributes that all axes share."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    excludes_outside: bool
    antialias: bool
    extrapolation: float


def taps(axis: Axis, how: Interpolation) -> tuple[Array, Array]:
    """Places int64 and weights float64, both [taps, new elements], of the weighted sum."""
    source = axis.source(how.coordinates)
    if how.mode == "nearest":
        places = _NEAREST[how.nearest](source).astype(np.int64)[None]
        weights = np.ones(places.shape)
    else:
        kernel, reach = _KERNELS["linear" if how.mode == "linear" else "cubic"]
        stretch = min(axis.scale, 1.0) if how.antialias else 1.0
        count = 2 * math.ceil(reach / stretch)
        first = np.floor(source).astype(np.int64) - count // 2 + 1
        places = first + np.arange(count)[:, None]
        weights = kernel((places - source) * stretch, how.cubic)
        if how.excludes_outside:
            weights = np.where((places >= 0) & (places < axis.before), weights, 0.0)
        weights = weights / weights.sum(axis=0)
    if how.coordinates == "tf_crop_and_resize":
        weights = np.where((source < 0) | (source > axis.before - 1), np.nan, weights)
    return places.clip(0, axis.before - 1), weights


def _linear(distance: Array, _: float) -> Array:
    return np.maximum(0.0, 1.0 - np.abs(distance))


def _cubic(distance: Array, a: float) -> Array:
    """The convolution kernel of Keys (1981)."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


_KERNELS: Mapping[str, tuple[Callable[[Array, float], Array], int]] = {
    "cubic": (_cubic, 2),
    "linear": (_linear, 1),
}
_NEAREST: Mapping[str, Callable[[Array], Array]] = {
    "ceil": np.ceil,
    "floor": np.floor,
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
}
