"""Sensitivity: the error that a model makes when some channels of one group are gone.

Measured on calibration samples, with the weights of the readers refitted. One pass over them
gives the error of the readers for every number of channels; what that does to the outputs of the
model is measured once, for half of the channels, and the whole curve is scaled by it. What refits
of the layers behind will repair is taken off: less is left of an error close to the input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array
from trimton.transforms.prune.activations import batches
from trimton.transforms.prune.groups import Group, Prunable
from trimton.transforms.prune.index_space import Indices
from trimton.transforms.prune.refit.damage import Damage
from trimton.transforms.prune.refit.elimination import Elimination, Reader, eliminate, half
from trimton.transforms.prune.refit.features import (
    feature_channels,
    is_linear,
    places_for,
    rows,
    weight_matrix,
)
from trimton.transforms.prune.refit.moments import Moments
from trimton.transforms.prune.refit.pairs import find_producer
from trimton.transforms.prune.refit.site import contribution
from trimton.transforms.prune.refit.taps import Taps
from trimton.transforms.prune.ties import Layer

# Groups are taken together while the moments of their readers fit into this.
_MOMENT_BYTES = 2**30
_RIDGE = 1e-4
# Of an error that is left by a refit of the readers alone, a joint refit of a reader leaves the
# first share, and each joint refit behind it the second. Tried with whole refits of seven cuts of
# a residual network, whose errors were 0.21 (at the input) to 0.87 (at the end) of what readers
# alone leave: these shares are right within a third. A trial of each cut would take longer than
# the refit itself. No more is taken off than what was tried.
_LEFT_BY_ITS_OWN = 0.55
_LEFT_BY_ONE_BEHIND = 0.8
_LEAST_LEFT = 0.2


@dataclass(frozen=True)
class _Measured:
    """``covariance`` and ``mean`` of features, ``variance`` of what the layer contributes to."""

    covariance: Array
    mean: Array
    variance: float


def sensitivities(
    model: ir.Model,
    found: Prunable,
    samples: Mapping[str, Array],
    orders: Sequence[Indices] | None = None,
) -> list[Elimination | None]:
    """For each group what its elimination costs, in the best or the given order of its sets.

    Errors are those of the outputs (see Damage), after a refit of all layers behind.
    None for a group that no linear layer reads. ``found`` must belong to this very model. Raises
    InputError where the model cannot be run on ``samples``.
    """
    readers = [_readers(group, found) for group in found.groups]
    damage = Damage(model, samples)
    left = _Left(model, found.ties.layers)
    results: list[Elimination | None] = [None] * len(readers)
    for numbers in _portions(readers):
        layers = {id(layer): layer for number in numbers for layer in readers[number]}
        measured = _measure(model, list(layers.values()), samples)
        for number in numbers:
            group = found.groups[number]
            parts = [_reader(layer, group, found, measured[id(layer)]) for layer in readers[number]]
            if parts:
                order = None if orders is None else orders[number]
                found_best = eliminate(parts, order)
                scaled = _scaled(found_best, readers[number], measured, damage)
                share = left.of(readers[number])
                results[number] = Elimination(scaled.order, scaled.errors * share)
    return results


class _Left:
    """The share of an error that joint refits leave, of the ``layers`` of ``model``."""

    def __init__(self, model: ir.Model, layers: Sequence[Layer]) -> None:
        self._place = {id(node): number for number, node in enumerate(model.graph)}
        makers = {id(layer.node.outputs[0]): layer for layer in layers}
        producers = {id(layer): find_producer(layer, makers) for layer in layers}
        self._paired = {key for key, found in producers.items() if found is not None}
        self._starts = [self._place[id(p.node)] for p in producers.values() if p is not None]

    def of(self, readers: Sequence[Layer]) -> float:
        """What is left of an error that the removal of channels makes in all of ``readers``."""
        first = min(self._place[id(layer.node)] for layer in readers)
        behind = sum(start >= first for start in self._starts)
        own = all(id(layer) in self._paired for layer in readers)
        return max(_LEAST_LEFT, (_LEFT_BY_ITS_OWN if own else 1.0) * _LEFT_BY_ONE_BEHIND**behind)


def _scaled(
    elimination: Elimination,
    layers: Sequence[Layer],
    measured: Mapping[int, _Measured],
    damage: Damage,
) -> Elimination:
    """``elimination`` with errors of the model's outputs instead of its readers'."""
    shifts = [
        measured[id(layer)].mean @ (weight_matrix(layer) - weights)
        for layer, weights in zip(layers, elimination.halfway, strict=True)
    ]
    done = damage.of(layers, elimination.halfway, shifts)
    own = float(elimination.errors[half(len(elimination.errors)) - 1])
    if not done > 0 or not own > 0:
        return elimination
    return Elimination(elimination.order, elimination.errors * (done / own))


def _readers(group: Group, found: Prunable) -> list[Layer]:
    """The linear layers that read every set of ``group``, equally often each."""
    return [
        layer
        for layer in found.ties.layers
        if is_linear(layer) and _columns(layer, group, found) is not None
    ]


def _columns(layer: Layer, group: Group, found: Prunable) -> Indices | None:
    """The features of each set, [sets, features of one]; None where not all have as many."""
    channels = found.found.labels[found.ties.indices(layer.weight, layer.inputs or 0)]
    labels = channels[feature_channels(layer)]
    parts = [np.flatnonzero(labels == label) for label in group.sets]
    if len({len(part) for part in parts}) != 1 or not len(parts[0]):
        return None
    return np.stack(parts)


def _portions(readers: Sequence[Sequence[Layer]]) -> Iterator[list[int]]:
    """Numbers of groups that are measured in one pass over the samples."""
    portion: list[int] = []
    used = 0
    for number, layers in enumerate(readers):
        size = sum(8 * len(weight_matrix(layer)) ** 2 for layer in layers)
        if portion and used + size > _MOMENT_BYTES:
            yield portion
            portion, used = [], 0
        portion.append(number)
        used += size
    yield portion


def _measure(
    model: ir.Model, layers: Sequence[Layer], samples: Mapping[str, Array]
) -> dict[int, _Measured]:
    """By layer what its readers need to know."""
    targets = {id(layer): contribution(layer.node.outputs[0]).name or "" for layer in layers}
    reads = {id(layer): layer.activation.name or "" for layer in layers}
    taps = Taps(model, [*targets.values(), *reads.values()])
    rng = np.random.default_rng(0)
    sums: dict[int, tuple[Moments, Moments]] = {}
    for feed in batches(model, samples):
        values = taps(feed)
        for layer in layers:
            key = id(layer)
            batch = rows(layer, values[reads[key]], places_for(layer, samples), rng)
            goal = batch.select(values[targets[key]])
            own = (
                Moments.of(batch.features, np.zeros((len(goal), 0))),
                Moments.of(np.zeros((len(goal), 0)), goal),
            )
            old = sums.get(key)
            sums[key] = own if old is None else (old[0] + own[0], old[1] + own[1])
    return {
        key: _Measured(x.covariance(_RIDGE)[0], x.x / x.count, y.variance())
        for key, (x, y) in sums.items()
    }


def _reader(layer: Layer, group: Group, found: Prunable, measured: _Measured) -> Reader:
    columns = _columns(layer, group, found)
    if columns is None:
        raise ValueError("the layer does not read the group")
    return Reader(measured.covariance, weight_matrix(layer), columns, measured.variance)
