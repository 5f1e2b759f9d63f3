"""Cost of a model as a function of how many sets each group keeps.

The cost of a layer is known at some shares of its multiply-accumulates, which are the share of its
outputs that stays times that of its inputs; between them it is taken for linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimton.transforms.graph.edit import Array
from trimton.transforms.prune.groups import Group, Prunable

_SMALLEST_GAP = 1e-9


@dataclass(frozen=True)
class Shares:
    """Which share of each layer's axis belongs to which group.

    ``fixed`` [layers] belongs to none, ``of_group`` [layers, groups] to each.
    """

    fixed: Array
    of_group: Array

    def kept(self, kept_of_group: Array) -> Array:
        """The share of each layer's axis that stays, [layers]."""
        left: Array = self.fixed + self.of_group @ kept_of_group
        return left


@dataclass(frozen=True)
class CostModel:
    """``costs`` [points, layers] at shares ``work`` [points, layers] of each layer's work.

    Both ascend; below the first point a layer costs what it does there. ``rest`` is the cost of
    all that is no layer. Units are the caller's: multiply-accumulates, or microseconds.
    """

    outputs: Shares
    inputs: Shares
    work: Array
    costs: Array
    rest: float

    def cost(self, groups: Sequence[Group], kept: Sequence[int]) -> float:
        """The cost when ``groups`` keep as many sets as ``kept``."""
        left = work_left(self.outputs, self.inputs, groups, kept)
        gaps = np.maximum(np.diff(self.work, axis=0), _SMALLEST_GAP)
        passed = np.clip((left - self.work[:-1]) / gaps, 0, 1)
        rises = np.diff(self.costs, axis=0)
        return float(self.rest + self.costs[0].sum() + (passed * rises).sum())


def work_left(
    outputs: Shares, inputs: Shares, groups: Sequence[Group], kept: Sequence[int]
) -> Array:
    """The share of its multiply-accumulates that each layer is left with, [layers]."""
    share = np.array([k / len(g.sets) for g, k in zip(groups, kept, strict=True)])
    left: Array = outputs.kept(share) * inputs.kept(share)
    return left


def layer_shares(found: Prunable) -> tuple[Shares, Shares]:
    """The shares of outputs and inputs of the layers of ``found``, in their order."""
    owner = np.full(found.found.count, -1, np.int64)
    for number, group in enumerate(found.groups):
        owner[group.sets] = number
    layers = found.ties.layers
    outputs = np.zeros((len(layers), len(found.groups) + 1))
    inputs = np.zeros_like(outputs)
    for row, layer in enumerate(layers):
        for table, position in ((outputs, layer.outputs), (inputs, layer.inputs)):
            indices = None if position is None else found.ties.indices(layer.weight, position)
            if indices is None or not indices.size:
                table[row, -1] = 1
                continue
            owners = owner[found.found.labels[indices]]  # -1 counts in the last column
            np.add.at(table[row], owners, 1 / indices.size)
    return (
        Shares(outputs[:, -1], outputs[:, :-1]),
        Shares(inputs[:, -1], inputs[:, :-1]),
    )
