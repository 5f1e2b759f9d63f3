"""Backward elimination of channels by exact error: optimal brain surgeon on channels.

The outputs of linear layers are Y = X W. Without some features, and with the remaining weights
refitted, the squared error rises by tr(Wc' (Hcc)^-1 Wc), where H is the inverse of X'X and c are
the features that go (Hassibi and Stork, 1993; on channels). Removing c updates H and W, so that
the next rise is exact again. Nothing but X'X is needed, whatever is removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.blas import dgemm

from trimton.transforms.graph.edit import Array
from trimton.transforms.prune.index_space import Indices


@dataclass(frozen=True)
class Reader:
    """A linear layer that reads channels of a group.

    ``covariance`` [features, features] of what it reads, with its ridge, ``weights`` [features,
    outputs], and for each set of the group the features that go with it, ``columns`` [sets,
    features of one]. ``variance`` is that of the value that the layer contributes to: errors are
    shares of it.
    """

    covariance: Array
    weights: Array
    columns: Indices
    variance: float


@dataclass(frozen=True)
class Elimination:
    """``order`` [sets], the first to go first; ``errors`` [sets], the error when each is gone.

    ``halfway`` are the weights of each reader [features, outputs] when half of the sets are gone.
    """

    order: Indices
    errors: Array
    halfway: tuple[Array, ...] = ()


def eliminate(readers: Sequence[Reader], order: Indices | None = None) -> Elimination:
    """Remove set after set of a group, always that of the least rise, or in the given ``order``."""
    states = [_State(reader) for reader in readers]
    sets = len(readers[0].columns)
    is_gone = np.zeros(sets, bool)
    chosen: list[int] = []
    errors: list[float] = []
    halfway: tuple[Array, ...] = ()
    for step in range(sets):
        rises = np.where(is_gone, np.inf, sum(state.rises(~is_gone) for state in states))
        worst = int(np.argmin(rises)) if order is None else int(order[step])
        for state in states:
            state.remove(worst)
        is_gone[worst] = True
        chosen.append(worst)
        errors.append((errors[-1] if errors else 0.0) + float(rises[worst]))
        if len(chosen) == half(sets):
            halfway = tuple(state.weights.copy() for state in states)
    return Elimination(np.array(chosen, np.int64), np.array(errors), halfway)


def half(sets: int) -> int:
    """How many sets are gone halfway."""
    return max(1, sets // 2)


class _State:
    """H and W of one reader, as they are after the removals so far."""

    def __init__(self, reader: Reader) -> None:
        factor = cho_factor(reader.covariance, check_finite=False)
        identity = np.eye(len(reader.covariance))
        inverse = cho_solve(factor, identity, check_finite=False)
        self._inverse: Array = np.asfortranarray(inverse)
        self.weights: Array = reader.weights.astype(np.float64)
        self._columns = reader.columns
        self._variance = reader.variance

    def rises(self, is_left: Array) -> Array:
        """The rise of the error were each set to go next, [sets]; 0 for those that are gone."""
        columns = self._columns[is_left]
        blocks = self._inverse[columns[:, :, None], columns[:, None, :]]
        own = self.weights[columns]
        rises = np.zeros(len(self._columns))
        rises[is_left] = np.einsum("sfo,sfo->s", own, np.linalg.solve(blocks, own))
        return rises / self._variance

    def remove(self, number: int) -> None:
        """Take a set out: its features neither explain nor count any more."""
        columns = self._columns[number]
        across = self._inverse[:, columns]
        part = np.linalg.solve(across[columns], across.T)
        self.weights -= part.T @ self.weights[columns]
        # In place, without a matrix for the product: this is where the time goes.
        self._inverse = dgemm(-1.0, across, part, 1.0, self._inverse, overwrite_c=True)
