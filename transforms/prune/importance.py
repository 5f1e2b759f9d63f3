"""Importance: how much a set of channels matters, from its weights or from what layers read.

Every criterion gives one number for each set of tied indices, summed over all layers that the set
touches; only the order within a group counts, so scores are divided by their group's mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trimton.transforms.graph.edit import Array, constant
from trimton.transforms.prune.activations import ChannelMeans
from trimton.transforms.prune.groups import Group
from trimton.transforms.prune.index_space import Indices
from trimton.transforms.prune.ties import Components, Ties


@dataclass(frozen=True)
class Evidence:
    """What a criterion looks at.

    ``means`` are those of channel_means, ``errors`` [sets] what the readers of a group lose when
    a set goes as one of the first, and ``effects`` [sets] what gradients say that the removal of
    a set alone does to the outputs: all are empty where the criterion needs none.
    """

    ties: Ties
    found: Components
    means: Mapping[tuple[str, int], ChannelMeans] = field(default_factory=dict)
    seed: int = 0
    errors: Array = field(default_factory=lambda: np.zeros(0))
    effects: Array = field(default_factory=lambda: np.zeros(0))


Criterion = Callable[[Evidence], Array]


def l1(evidence: Evidence) -> Array:
    """The sum of all weights' magnitudes (Li et al., 2017)."""
    return _summed(evidence, _magnitudes(evidence, 1))


def l2(evidence: Evidence) -> Array:
    """The Euclidean norm of all weights (as GroupNorm of Fang et al., 2023)."""
    scores: Array = np.sqrt(_summed(evidence, _magnitudes(evidence, 2)))
    return scores


def geometric_median(evidence: Evidence) -> Array:
    """The sum of distances to the other filters of the layer (He et al., 2019): close ones go."""
    return _summed(evidence, _distances(evidence))


def activation(evidence: Evidence) -> Array:
    """Mean magnitude of what is read, times the norm of the weights that read it."""
    return _summed(evidence, _read_magnitudes(evidence))


def reconstruction(evidence: Evidence) -> Array:
    """The error of the readers on samples, all that went before being gone, refitted."""
    return evidence.errors


def by_gradients(evidence: Evidence) -> Array:
    """What the removal of a set does to the outputs, as gradients tell; see gradients.ESTIMATES."""
    return evidence.effects


def batchnorm_scale(evidence: Evidence) -> Array:
    """The magnitude of BatchNormalization's scale (Liu et al., 2017)."""
    return _summed(evidence, _scales(evidence))


def random(evidence: Evidence) -> Array:
    """Random numbers from the seed, as a control."""
    return np.random.default_rng(evidence.seed).uniform(0.5, 1.5, evidence.found.count)


CRITERIA: Mapping[str, Criterion] = {
    "l1": l1,
    "l2": l2,
    "geometric-median": geometric_median,
    "activation": activation,
    "batchnorm-scale": batchnorm_scale,
    "random": random,
    "reconstruction": reconstruction,
    "taylor": by_gradients,
    "hessian": by_gradients,
}
NEEDS_MEANS = frozenset({"activation"})
NEEDS_ERRORS = frozenset({"reconstruction"})
NEEDS_GRADIENTS = frozenset({"taylor", "hessian"})
NEEDS_SAMPLES = NEEDS_MEANS | NEEDS_ERRORS | NEEDS_GRADIENTS


def group_scores(scores: Array, groups: Sequence[Group]) -> list[Array]:
    """The scores of each group's sets, divided by their mean, [sets] each."""
    own = [scores[group.sets] for group in groups]
    return [part / mean if (mean := part.mean()) > 0 else np.ones_like(part) for part in own]


_Part = tuple[Indices, Array]


def _summed(evidence: Evidence, parts: Iterator[_Part]) -> Array:
    """Add numbers given for indices up by set, [sets]."""
    scores = np.zeros(evidence.found.count)
    for indices, numbers in parts:
        np.add.at(scores, evidence.found.labels[indices], numbers)
    return scores


def _layer_axes(evidence: Evidence) -> Iterator[tuple[Indices, Array]]:
    """The indices of every weight axis that makes or reads channels, and the weight from there."""
    for layer in evidence.ties.layers:
        tensor = constant(layer.weight)
        if tensor is None:
            continue
        for position in (layer.outputs, layer.inputs):
            indices = None if position is None else evidence.ties.indices(layer.weight, position)
            if indices is not None and indices.size and position is not None:
                yield indices, _rows(tensor.numpy(), position)


def _rows(array: Array, axis: int) -> Array:
    """One row for each index of ``axis``."""
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def _magnitudes(evidence: Evidence, power: int) -> Iterator[_Part]:
    for indices, rows in _layer_axes(evidence):
        magnitudes = np.abs(rows, dtype=np.float32)
        yield (
            indices,
            np.einsum("ij,ij->i", magnitudes, magnitudes)
            if power == 2
            else (magnitudes.sum(axis=1)),
        )


def _distances(evidence: Evidence) -> Iterator[_Part]:
    for layer in evidence.ties.layers:
        tensor = constant(layer.weight)
        if tensor is None:
            continue
        rows = _rows(tensor.numpy(), layer.outputs).astype(np.float64)
        squares = np.einsum("ij,ij->i", rows, rows)
        gaps = squares[:, None] + squares[None, :] - 2 * rows @ rows.T
        distances = np.sqrt(np.maximum(gaps, 0)).sum(axis=1)
        yield evidence.ties.indices(layer.weight, layer.outputs), distances


def _read_magnitudes(evidence: Evidence) -> Iterator[_Part]:
    for layer in evidence.ties.layers:
        means = evidence.means.get((layer.activation.name or "", layer.activation_axis))
        tensor = constant(layer.weight)
        if tensor is None or means is None or layer.inputs is None:
            continue
        norms = np.linalg.norm(_rows(tensor.numpy(), layer.inputs).astype(np.float32), axis=1)
        indices = evidence.ties.indices(layer.activation, layer.activation_axis)
        if len(norms) == len(means.absolute) == indices.size:
            yield indices, norms * means.absolute


def _scales(evidence: Evidence) -> Iterator[_Part]:
    for scale in evidence.ties.scales:
        tensor = constant(scale)
        if tensor is not None:
            yield evidence.ties.indices(scale, 0), np.abs(tensor.numpy()).astype(np.float64)
