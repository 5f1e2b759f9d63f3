"""The weights with which a layer comes closest to what the original network had."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimton.transforms.graph.edit import Array
from trimton.transforms.linear.evidence import Evidence
from trimton.transforms.prune.refit.solve import fit


@dataclass(frozen=True)
class Goal:
    """``weights`` [groups, features, outputs] without any limit, and the ``constant``
    [groups, outputs] to add: what a compressed layer should come close to."""

    weights: Array
    constant: Array

    @classmethod
    def of(cls, weights: Array, evidence: Evidence) -> Goal:
        """The least-squares fit of each group, or its ``weights`` where that holds no better."""
        best = weights.copy()
        constant = np.zeros((len(weights), weights.shape[2]))
        for group, seen in enumerate(evidence.seen):
            held_out = None if evidence.held_out is None else evidence.held_out[group]
            if (found := fit(seen, held_out)) is not None:
                best[group] += found.change
                constant[group] = found.constant
        return cls(best, constant)

    def is_reached_by(self, weights: Array) -> bool:
        """Whether ``weights`` are the goal, with nothing to add."""
        return np.array_equal(weights, self.weights) and not self.constant.any()

    def shift(self, made: Array, evidence: Evidence) -> Array:
        """The constant [groups, outputs] that goes with ``made`` instead of the goal's weights:
        with it, the means stay those of the goal."""
        means = np.stack([moments.x / moments.count for moments in evidence.everything])
        moved: Array = np.einsum("gf,gfo->go", means, self.weights - made)
        return self.constant + moved


def errors(old: Array, new: Array, shift: Array, evidence: Evidence) -> dict[str, float]:
    """Mean squared errors on unseen rows before and after ``old`` [groups, features, outputs]
    became ``new`` and ``shift`` [groups, outputs] was added, as shares of the variance."""
    before = after = 0.0
    for group, judge in enumerate(evidence.judge):
        change = new[group] - old[group]
        before += judge.error(np.zeros_like(change), np.zeros_like(shift[group]))
        after += judge.error(change, shift[group])
    return {"before": before / evidence.variance, "after": after / evidence.variance}
