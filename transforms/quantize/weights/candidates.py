"""Integers and a shift of the bias for one layer: several ways to come closer to its goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from trimton.transforms.prune.refit.moments import Moments
from trimton.transforms.quantize.encoding import Array
from trimton.transforms.quantize.weights.compensation import compensated_rounding

# Shares of the features' mean variance: for rounding, and those that a refit is tried with.
_RIDGE = 1e-3
_RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
# Fewer rows than these, and none to judge by: rounding would follow their noise.
_ROWS_PER_FEATURE = 4


@dataclass(frozen=True)
class Candidate:
    """``integers`` [features, outputs] and what to add to the outputs, ``shift`` [outputs]."""

    method: str
    integers: Array
    shift: Array

    def change(self, weights: Array, scale: Array) -> tuple[Array, Array]:
        """The change of the float ``weights``, and the shift: what Moments tell the error of."""
        return self.integers * scale - weights, self.shift


def candidates(
    weights: Array,
    integers: Array,
    scale: Array,
    seen: Moments,
    held_out: Moments | None,
    order: Array,
    *,
    is_paired: bool,
    has_bias: bool,
) -> Sequence[Candidate]:
    """Ways to replace ``integers`` [features, outputs] of ``weights``; the first keeps them.

    ``scale`` [outputs] stays. The moments are those of the features and of the error that the
    float weights leave; only ``seen`` is fitted to. ``order`` [features] is that of the kernel's
    sums. Without ``has_bias`` nothing can be added to the outputs, without features only a bias
    can change.
    """
    nothing = np.zeros(integers.shape[1])
    found = [Candidate("unchanged", integers, nothing)]
    if has_bias:
        shift = _shift(seen, integers * scale - weights)
        found.append(Candidate("bias correction", integers, shift))
    is_blind = held_out is None and seen.count < _ROWS_PER_FEATURE * len(weights)
    if is_blind or not len(weights):
        return found
    goals = {"compensated rounding": weights}
    if has_bias and held_out is not None:
        goals["refit and compensated rounding"] = weights + _refit(seen, held_out)
    gram = seen.covariance(_RIDGE)[0] if has_bias else seen.gram / seen.count
    ordered = gram[np.ix_(order, order)]
    for method, goal in goals.items():
        made = np.empty_like(integers)
        made[order] = compensated_rounding(goal[order].T, scale, ordered, is_paired=is_paired).T
        shift = _shift(seen, made * scale - weights) if has_bias else nothing
        found.append(Candidate(method, made, shift))
    return found


def _refit(seen: Moments, held_out: Moments) -> Array:
    """The change of the float weights that leaves the least error on ``held_out``."""
    changes = [np.zeros_like(seen.cross)]
    for ridge in _RIDGES:
        gram, cross = seen.covariance(ridge)
        changes.append(cho_solve(cho_factor(gram, overwrite_a=True, check_finite=False), cross))
    errors = [held_out.error(change, _shift(seen, change)) for change in changes]
    return changes[int(np.argmin(errors))]


def _shift(moments: Moments, change: Array) -> Array:
    """The mean error that is left after ``change`` of the weights."""
    shift: Array = (moments.r - moments.x @ change) / moments.count
    return shift
