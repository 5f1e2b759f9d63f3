"""Resize and Upsample, one axis at a time."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trimton.transforms.distill.interpreter.dtypes import Array
from trimton.transforms.distill.interpreter.node import Kernel, NodeView
from trimton.transforms.distill.interpreter.operators.interpolation import (
    Axis,
    Interpolation,
    taps,
)
from trimton.transforms.distill.interpreter.operators.table import Builder

_WHOLE = (0.0, 1.0)


def resize(view: NodeView) -> Kernel:
    """X resized by scales or to sizes, with a region of interest for one kind of coordinates."""
    how = _interpolation(view)
    has_region = view.opset >= 11 and view.node.op_type == "Resize"
    attribute = view.numbers("scales")  # Upsample before operator set 9

    def run(x: Tensor, *settings: Tensor | None) -> Tensor:
        given = settings if has_region else (None, *settings)
        region, scales, sizes = (_numbers(tensor) for tensor in (*given, None, None, None)[:3])
        return _resized(x, _axes(view, x, region, scales or attribute, sizes), how)

    return run


def _interpolation(view: NodeView) -> Interpolation:
    """Upsample, and Resize before operator set 11, count from the corner and round down."""
    is_old = view.node.op_type == "Upsample" or view.opset < 11
    coordinates = "asymmetric" if is_old else "half_pixel"
    return Interpolation(
        mode=view.text("mode", "nearest"),
        coordinates=view.text("coordinate_transformation_mode", coordinates),
        nearest="floor" if is_old else view.text("nearest_mode", "round_prefer_floor"),
        cubic=view.number("cubic_coeff_a", -0.75),
        excludes_outside=view.flag("exclude_outside"),
        antialias=view.flag("antialias"),
        extrapolation=view.number("extrapolation_value", 0.0),
    )


def _numbers(tensor: Tensor | None) -> list[float] | None:
    """The elements; None where an input is left out or empty, which means the same here."""
    return None if tensor is None or not tensor.numel() else tensor.tolist()


def _axes(
    view: NodeView,
    x: Tensor,
    region: Sequence[float] | None,
    scales: Sequence[float] | None,
    sizes: Sequence[float] | None,
) -> Mapping[int, Axis]:
    """What becomes of each axis that is listed (by default, of all)."""
    listed = view.integers("axes")
    chosen = list(range(x.ndim)) if listed is None else [axis % x.ndim for axis in listed]
    before, count = [x.shape[axis] for axis in chosen], len(chosen)
    is_cropped = view.text("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    regions = [_WHOLE] * count
    if region is not None and is_cropped:
        regions = [(region[i], region[i + count]) for i in range(count)]
    if sizes is not None:
        scales, after = _fitted(view, before, [int(size) for size in sizes])
    else:
        scales = scales or [1.0] * count
        shares = [end - start for start, end in regions]
        after = [
            math.floor(size * share * scale)
            for size, share, scale in zip(before, shares, scales, strict=True)
        ]
    axes = map(Axis, before, after, scales, regions)
    return dict(zip(chosen, axes, strict=True))


def _fitted(
    view: NodeView, before: Sequence[int], sizes: Sequence[int]
) -> tuple[list[float], list[int]]:
    """Scales and sizes for the sizes asked for, or with the proportions kept."""
    scales = [after / size for after, size in zip(sizes, before, strict=True)]
    policy = view.text("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return scales, list(sizes)
    common = (min if policy == "not_larger" else max)(scales)
    return [common] * len(scales), [math.floor(common * size + 0.5) for size in before]


def _resized(x: Tensor, axes: Mapping[int, Axis], how: Interpolation) -> Tensor:
    if factors := _whole_factors(x, axes, how):
        return F.interpolate(x, scale_factor=factors, mode="nearest")
    is_outside: Tensor | None = None
    for number, axis in axes.items():
        if axis.before == axis.after and axis.scale == 1.0 and axis.region == _WHOLE:
            continue
        places, weights = taps(axis, how)
        shape = [-1 if i == number else 1 for i in range(x.ndim)]
        outside = np.isnan(weights).any(axis=0)
        if outside.any():
            here = torch.from_numpy(outside).reshape(shape)
            is_outside = here if is_outside is None else is_outside | here
        x = _weighted(x, number, places, np.nan_to_num(weights), shape)
    if is_outside is None:
        return x
    return torch.where(is_outside, torch.tensor(how.extrapolation, dtype=x.dtype), x)


def _weighted(x: Tensor, axis: int, places: Array, weights: Array, shape: Sequence[int]) -> Tensor:
    parts = (
        x.index_select(axis, torch.from_numpy(place))
        * torch.from_numpy(weight).to(x.dtype).reshape(shape)
        for place, weight in zip(places, weights, strict=True)
        if weight.any()
    )
    return functools.reduce(torch.add, parts)


def _whole_factors(x: Tensor, axes: Mapping[int, Axis], how: Interpolation) -> list[float] | None:
    """Factors for torch's own nearest neighbour, where that is what is asked for."""
    if how.mode != "nearest" or x.ndim not in (3, 4, 5) or not x.dtype.is_floating_point:
        return None
    is_floor = how.coordinates == "asymmetric" and how.nearest == "floor"
    is_round = how.coordinates == "half_pixel" and how.nearest.startswith("round")
    factors = [axes[i].scale if i in axes else 1.0 for i in range(x.ndim)]
    if not (is_floor or is_round) or factors[:2] != [1.0, 1.0]:
        return None
    return factors[2:] if all(f.is_integer() and f >= 1 for f in factors) else None


OPERATORS: Mapping[tuple[str, str], Builder] = {
    ("", "Resize"): resize,
    ("", "Upsample"): resize,
}
