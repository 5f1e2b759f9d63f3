"""Integers and a shift of the bias for one layer: several ways to come closer to its goal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimton.transforms.prune.refit.group_moments import GroupMoments
from trimton.transforms.quantize.encoding import Array
from trimton.transforms.quantize.weights.compensation import compensated_rounding

# Shares of a group's mean variance that a refit is tried with.
_RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
# Fewer rows than these, and none to judge by: rounding would follow their noise.
_ROWS_PER_FEATURE = 4


@dataclass(frozen=True)
class Candidate:
    """``integers`` [groups, features, outputs] and what to add to the outputs, ``shift``."""

    method: str
    integers: Array
    shift: Array


@dataclass(frozen=True)
class Weights:
    """A layer's weights in float and as ``integers`` times ``scale`` [groups, outputs].

    ``floats`` and ``integers`` are [groups, features, outputs]. ``order`` [features] is that of
    the kernel's sums, in which with ``is_paired`` no pair of weights may saturate.
    """

    floats: Array
    integers: Array
    scale: Array
    order: Array
    is_paired: bool

    def change(self, integers: Array) -> Array:
        """What ``integers`` add to the float weights."""
        change: Array = integers * self.scale[:, None, :] - self.floats
        return change


def candidates(
    weights: Weights, seen: GroupMoments, held_out: GroupMoments | None, *, has_bias: bool
) -> list[Candidate]:
    """Ways to replace the integers of ``weights``; the first keeps them.

    The scale stays. The moments are those of the features and of the error that the float weights
    leave; only ``seen`` is fitted to. Without ``has_bias`` nothing can be added to the outputs,
    without features only a bias can change.
    """
    old = weights.integers
    nothing = np.zeros((old.shape[0], old.shape[2]))
    found = [Candidate("unchanged", old, nothing)]
    if has_bias:
        found.append(Candidate("bias correction", old, _shift(seen, weights.change(old))))
    features = old.shape[1]
    if not features or (held_out is None and seen.count < _ROWS_PER_FEATURE * features):
        return found
    goals = {"compensated rounding": weights.floats}
    if has_bias and held_out is not None:
        goals["refit and compensated rounding"] = weights.floats + _refit(seen, held_out)
    gram = _gram(seen, is_centred=has_bias)
    for method, goal in goals.items():
        integers = _round(goal, weights, gram)
        shift = _shift(seen, weights.change(integers)) if has_bias else nothing
        found.append(Candidate(method, integers, shift))
    return found


def _round(goal: Array, weights: Weights, gram: Array) -> Array:
    order = weights.order
    rows = goal[:, order].transpose(0, 2, 1)
    ordered = gram[:, order[:, None], order]
    made = compensated_rounding(rows, weights.scale, ordered, is_paired=weights.is_paired)
    integers = np.empty_like(goal)
    integers[:, order] = made.transpose(0, 2, 1)
    return integers


def _gram(moments: GroupMoments, *, is_centred: bool) -> Array:
    """The second moments of one row; around the means where a bias takes care of these."""
    gram: Array = moments.gram / moments.count
    if is_centred:
        mean = moments.x / moments.count
        gram = gram - mean[:, :, None] * mean[:, None, :]
    return gram


def _refit(seen: GroupMoments, held_out: GroupMoments) -> Array:
    """The change of the float weights that leaves the least error on ``held_out``, by group."""
    groups = len(seen.gram)
    fits = [(np.zeros_like(seen.cross), seen.r / seen.count)]
    fits += [seen.solve(np.full(groups, ridge)) for ridge in _RIDGES]
    best = np.argmin([held_out.errors(*one) for one in fits], axis=0)
    changes: Array = np.stack([change for change, _ in fits])[best, np.arange(groups)]
    return changes


def _shift(moments: GroupMoments, change: Array) -> Array:
    """The mean error [groups, outputs] that is left after ``change`` of the weights."""
    shift: Array = (moments.r - np.einsum("gf,gfo->go", moments.x, change)) / moments.count
    return shift
