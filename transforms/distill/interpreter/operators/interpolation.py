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

    def _corners(self, x: Array) -> Array:
        return x * (self.before - 1) / max(self.after - 1, 1) if self.after > 1 else 0.0 * x

    def _cropped(self, x: Array) -> Array:
        start, end = (bound * (self.before - 1) for bound in self.region)
        if self.after == 1:
            return 0.5 * (start + end) + 0.0 * x
        return start + x * (end - start) / (self.after - 1)

    def _symmetric(self, x: Array) -> Array:
        adjustment = self.after / (self.before * self.scale)
        offset = self.before / 2 * (1 - adjustment)
        return offset + (x + 0.5) / self.scale - 0.5

    def source(self, coordinates: str) -> Array:
        """Where each new element stands among the old ones."""
        x = np.arange(self.after, dtype=np.float64)
        half = (x + 0.5) / self.scale - 0.5
        return {
            "align_corners": self._corners,
            "asymmetric": lambda x: x / self.scale,
            "half_pixel": lambda _: half,
            "half_pixel_symmetric": self._symmetric,
            "pytorch_half_pixel": lambda x: half if self.after > 1 else 0.0 * x,
            "tf_crop_and_resize": self._cropped,
            "tf_half_pixel_for_nn": lambda x: (x + 0.5) / self.scale,
        }[coordinates](x)


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
