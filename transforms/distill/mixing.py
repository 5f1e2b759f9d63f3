"""Mixup: each sample of a batch mixed with another one (Zhang et al. 2018, arXiv:1710.09412).

A teacher says what a mixed input is, so that mixing needs no labels (Beyer et al. 2022,
arXiv:2106.05237). Inputs of integers, booleans and texts cannot be mixed and stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trimton.transforms.graph.edit import Array


@dataclass(frozen=True)
class MixedLabels:
    """Two labels for each sample, ``own`` and ``other`` int64 [N]; ``share_of_own`` float32 [N]."""

    own: Array
    other: Array
    share_of_own: Array

    @staticmethod
    def pure(labels: Array) -> MixedLabels:
        """Labels of samples that are not mixed."""
        return MixedLabels(labels, labels, np.ones(len(labels), np.float32))

    def __getitem__(self, chosen: Array | slice) -> MixedLabels:
        return MixedLabels(self.own[chosen], self.other[chosen], self.share_of_own[chosen])


def mix(
    inputs: Mapping[str, Array],
    labels: Array | None,
    concentration: float,
    rng: np.random.Generator,
) -> tuple[dict[str, Array], MixedLabels | None]:
    """``inputs`` (first axis = samples) mixed by shares from Beta(concentration, concentration)."""
    count = len(next(iter(inputs.values())))
    partner = rng.permutation(count)
    share = rng.beta(concentration, concentration, count).astype(np.float32)
    share = np.maximum(share, 1 - share)  # the larger share is a sample's own
    mixed = {name: _mixed(array, partner, share) for name, array in inputs.items()}
    return mixed, None if labels is None else MixedLabels(labels, labels[partner], share)


def _mixed(array: Array, partner: Array, share: Array) -> Array:
    if array.dtype.kind != "f":
        return array
    own = share.reshape(-1, *[1] * (array.ndim - 1)).astype(array.dtype)
    return np.asarray(own * array + (1 - own) * array[partner])
