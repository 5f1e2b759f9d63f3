"""Cost of a model as a function of how many sets each group keeps.

Every layer costs a fixed part and one in proportion to its multiply-accumulates, that is to the
shares of its outputs and of its inputs that stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimton.transforms.graph.edit import Array
from trimton.transforms.prune.groups import Group, Prunable


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
    """``fixed`` and ``variable`` cost of each layer [layers], and of all that is no layer.

    Units are the caller's: multiply-accumulates, or microseconds.
    """

    outputs: Shares
    inputs: Shares
    fixed: Array
    variable: Array
    rest: float

    def cost(self, groups: Sequence[Group], kept: Sequence[int]) -> float:
        """The cost when ``groups`` keep as many sets as ``kept``."""
        share = np.array([k / len(g.sets) for g, k in zip(groups, kept, strict=True)])
        return float(self.rest + (self.fixed + self.variable * self.work(share)).sum())

    def work(self, share: Array) -> Array:
        """The share of its multiply-accumulates that each layer is left with, [layers]."""
        left: Array = self.outputs.kept(share) * self.inputs.kept(share)
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
