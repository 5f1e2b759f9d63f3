"""Refit of layers whose channels are fitted group by group: grouped, depthwise and transposed.

A group reads few channels, so that its normal equations are small, and all groups are solved at
once: a depthwise layer has as many of them as channels. Each group takes the ridge that holds best
on batches that its fit has not seen, or stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from trimton.transforms.graph.edit import Array, constant_array
from trimton.transforms.prune.refit.features import rows
from trimton.transforms.prune.refit.group_moments import GroupMoments
from trimton.transforms.prune.refit.transposed import (
    has_known_window,
    output_sizes,
    transposed_patches,
)
from trimton.transforms.prune.ties import Layer

_ROWS_PER_FEATURE = 32
# Shares of a group's mean variance.
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_SMALLEST = 1e-24


@dataclass(frozen=True)
class Batch:
    """One batch: what the layer reads, and whether it judges the fit.

    ``wanted`` is the value that the layer contributes to in the original network, ``made`` that
    in the network as it is; both have the shape of the layer's output.
    """

    activation: Array
    wanted: Array
    made: Array
    is_held_out: bool

    @property
    def error(self) -> Array:
        """What the fit shall add."""
        difference: Array = self.wanted - self.made
        return difference


@dataclass(frozen=True)
class GroupedFit:
    """``weights`` in the layer's shape and ``constant`` [outputs] to add to its bias.

    ``before`` and ``after`` are mean squared errors on the held-out rows, as shares of the
    variance of what is wanted.
    """

    weights: Array
    constant: Array
    before: float
    after: float


def is_grouped(layer: Layer) -> bool:
    """Whether fit_groups can fit ``layer``."""
    rule = _RULES.get(layer.node.op_type)
    return rule is not None and constant_array(layer.weight) is not None and rule.fits(layer)


def fit_groups(layer: Layer, batches: Iterable[Batch], samples: int) -> GroupedFit | None:
    """The weights that remove the error of ``batches``, of so many samples in all.

    None where no group gains anything on held-out rows. Memory does not depend on ``samples``.
    """
    rule, weight = _RULES[layer.node.op_type], constant_array(layer.weight)
    if weight is None:
        raise ValueError("the layer has no constant weight")
    groups = _groups(layer)
    own = rule.split(weight, groups)
    places = max(1, -(-_ROWS_PER_FEATURE * own.shape[1] // max(1, samples)))
    rng = np.random.default_rng(0)
    parts: dict[bool, GroupMoments] = {}
    spread = np.zeros((2, groups * own.shape[2]))
    count = 0
    for batch in batches:
        x, r = rule.rows(layer, batch, places, rng)
        moments = GroupMoments.of(_by_group(x, groups), _by_group(r, groups))
        old = parts.get(batch.is_held_out)
        parts[batch.is_held_out] = moments if old is None else old + moments
        channels = np.moveaxis(batch.wanted, 1, 0).reshape(spread.shape[1], -1).astype(np.float64)
        spread += np.stack([channels.sum(axis=1), np.einsum("ij,ij->i", channels, channels)])
        count += channels.shape[1]
    seen = parts[False]
    judge = parts.get(True, seen)
    nothing = np.zeros_like(own, np.float64), np.zeros_like(seen.r)
    before = judge.errors(*nothing)
    ridges = _RIDGES if True in parts else _RIDGES[:1]
    tried = np.stack([judge.errors(*seen.solve(np.full(groups, ridge))) for ridge in ridges])
    best, gains = tried.argmin(axis=0), tried.min(axis=0) < before
    if not gains.any():
        return None
    everything = seen + judge if True in parts else seen
    change, constant = everything.solve(np.array(ridges)[best])
    change, constant = change * gains[:, None, None], constant * gains[:, None]
    mean, square = spread / count
    variance = max(float((square - mean**2).sum()), _SMALLEST)
    after = float(np.where(gains, tried.min(axis=0), before).sum())
    fitted = rule.join(own + change, weight.shape).astype(weight.dtype)
    return GroupedFit(
        fitted, constant.reshape(-1), float(before.sum()) / variance, after / variance
    )


def _groups(layer: Layer) -> int:
    return layer.node.attributes.get_int("group", 1) or 1


def _by_group(array: Array, groups: int) -> Array:
    """[rows, groups * each] -> [groups, rows, each] in double precision."""
    parts = array.reshape(len(array), groups, -1).transpose(1, 0, 2)
    return np.ascontiguousarray(parts, np.float64)


def _is_grouped_convolution(layer: Layer) -> bool:
    return _groups(layer) > 1


def _split_convolution(weight: Array, groups: int) -> Array:
    """[outputs, inputs of a group, kernel...] -> [groups, features, outputs of a group]."""
    return weight.reshape(groups, weight.shape[0] // groups, -1).transpose(0, 2, 1)


def _join_convolution(parts: Array, shape: tuple[int, ...]) -> Array:
    return parts.transpose(0, 2, 1).reshape(shape)


def _convolution_rows(
    layer: Layer, batch: Batch, places: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    taken = rows(layer, batch.activation, places, rng)
    return taken.features, taken.select(batch.error)


def _split_transposed(weight: Array, groups: int) -> Array:
    """[inputs, outputs of a group, kernel...] -> [groups, features, outputs of a group]."""
    inputs, outputs = weight.shape[:2]
    parts = weight.reshape(groups, inputs // groups, outputs, -1).transpose(0, 1, 3, 2)
    return parts.reshape(groups, -1, outputs)


def _join_transposed(parts: Array, shape: tuple[int, ...]) -> Array:
    groups, _, outputs = parts.shape
    by_place = parts.reshape(groups, shape[0] // groups, prod(shape[2:]), outputs)
    return by_place.transpose(0, 1, 3, 2).reshape(shape)


def _transposed_rows(
    layer: Layer, batch: Batch, places: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    count = prod(output_sizes(layer, batch.activation.shape[2:]))
    chosen = np.sort(rng.choice(count, min(places, count), replace=False))
    patches = transposed_patches(layer, batch.activation, chosen)
    errors = batch.error.reshape(*batch.error.shape[:2], -1)[:, :, chosen].transpose(0, 2, 1)
    flat = patches.shape[0] * patches.shape[1]
    return patches.reshape(flat, -1), errors.reshape(flat, -1)


@dataclass(frozen=True)
class _Rule:
    """How a kind of layer is cut into groups and put together, and what its rows are."""

    fits: Callable[[Layer], bool]
    split: Callable[[Array, int], Array]
    join: Callable[[Array, tuple[int, ...]], Array]
    rows: Callable[[Layer, Batch, int, np.random.Generator], tuple[Array, Array]]


_RULES: Mapping[str, _Rule] = {
    "Conv": _Rule(
        _is_grouped_convolution, _split_convolution, _join_convolution, _convolution_rows
    ),
    "ConvTranspose": _Rule(has_known_window, _split_transposed, _join_transposed, _transposed_rows),
}
