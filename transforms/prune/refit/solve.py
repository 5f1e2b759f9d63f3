"""Ridge regression of a layer's error on what it reads: the change of weights that removes it.

The ridge pulls towards no change. Its strength is chosen on batches that the fit has not seen,
and where no strength makes the error there smaller, nothing is changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from trimton.transforms.graph.edit import Array
from trimton.transforms.prune.refit.moments import Moments

# Shares of the features' mean variance.
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Fit:
    """``change`` [features, targets] of the weights and ``constant`` [targets] of the bias.

    ``before`` and ``after`` are mean squared errors on the held-out rows.
    """

    change: Array
    constant: Array
    before: float
    after: float


def fit(seen: Moments, held_out: Moments | None) -> Fit | None:
    """The change that removes the error, None where there is none that holds on unseen rows.

    Without ``held_out`` the weakest ridge is taken, and errors are those on the rows seen.
    """
    judge = seen if held_out is None else held_out
    ridges = _RIDGES[:1] if held_out is None else _RIDGES
    none = np.zeros_like(seen.cross), np.zeros_like(seen.r)
    before = judge.error(*none)
    errors = [judge.error(*ridge_fit(seen, ridge)) for ridge in ridges]
    best = int(np.argmin(errors))
    if not errors[best] < before:
        return None
    everything = seen if held_out is None else seen + held_out
    return Fit(*ridge_fit(everything, ridges[best]), before, errors[best])


def ridge_fit(moments: Moments, ridge: float) -> tuple[Array, Array]:
    """(change, constant) of least error; ``ridge`` is a share of the features' mean variance."""
    gram, cross = moments.covariance(ridge)
    change: Array = cho_solve(cho_factor(gram, overwrite_a=True, check_finite=False), cross)
    constant: Array = (moments.r - moments.x @ change) / moments.count
    return change, constant
