"""Second-order sparsity: what a weight gave is taken over by those that stay.

For y = x W and G = E[x x'], the error of W + D is tr(D' G D). Setting one weight w to zero and
changing the others of its output to make up for it costs w^2 / [G^-1]_ff: optimal brain surgeon
(Hassibi and Stork, 1993). Going through the features in one order lets all outputs share the
inverses that this takes, as rows of one Cholesky factor (Frantar and Alistarh, 2023, SparseGPT,
arXiv:2301.00774). What that leaves, because features decided later cannot help those before
them, a few steps of conjugate gradients on the weights that stay make up for.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky
from scipy.linalg.lapack import dpotri

from trimton.transforms.graph.edit import Array
from trimton.transforms.sparsify.pattern import Pattern

_BLOCK = 128
_STEPS = 30
_SMALLEST = 1e-30


def compensated(weights: Array, covariance: Array, pattern: Pattern) -> Array:
    """The weights [features, outputs] in ``pattern`` that come close to ``weights``.

    ``covariance`` [features, features] of what they multiply must be positive definite.
    """
    found, is_kept = surgeon(weights, covariance, pattern)
    return descend(found, weights, covariance, is_kept)


def surgeon(weights: Array, covariance: Array, pattern: Pattern) -> tuple[Array, Array]:
    """(weights, which of them stay) after one pass over the features."""
    left = weights.astype(np.float64)
    is_kept = np.ones(left.shape, bool)
    factor = _inverse_factor(covariance)
    chosen_at_once = pattern.block(len(left))
    # Features behind a block get its errors in one matrix product.
    size = max(1, _BLOCK // chosen_at_once) * chosen_at_once
    for start in range(0, len(left), size):
        stop = min(start + size, len(left))
        errors = np.zeros((stop - start, left.shape[1]))
        for row in range(start, stop):
            if (row - start) % chosen_at_once == 0:
                some = slice(row, min(row + chosen_at_once, stop))
                cost = (left[some] / np.diag(factor)[some, None]) ** 2
                is_kept[some] = pattern.keep(cost, by_output=False)
            error = np.where(is_kept[row], 0.0, left[row]) / factor[row, row]
            left[row:stop] -= np.outer(factor[row, row:stop], error)
            errors[row - start] = error
        left[stop:] -= factor[start:stop, stop:].T @ errors
    return np.where(is_kept, left, 0.0), is_kept


def descend(start: Array, goal: Array, covariance: Array, is_kept: Array) -> Array:
    """Conjugate gradients from ``start`` towards the least error among weights that stay.

    Every output is a problem of its own, tr((s - g)' G (s - g)) over its kept weights; all take
    their steps at once.
    """
    found = np.where(is_kept, start, 0.0)
    gradient = np.where(is_kept, covariance @ (goal - found), 0.0)
    direction = gradient
    squares = np.einsum("fo,fo->o", gradient, gradient)
    for _ in range(_STEPS):
        moved = np.where(is_kept, covariance @ direction, 0.0)
        length = squares / np.maximum(np.einsum("fo,fo->o", direction, moved), _SMALLEST)
        found = found + direction * length
        gradient = gradient - moved * length
        new = np.einsum("fo,fo->o", gradient, gradient)
        direction = gradient + direction * (new / np.maximum(squares, _SMALLEST))
        squares = new
    return found


def _inverse_factor(covariance: Array) -> Array:
    """The upper U with U' U = covariance^-1: row f, over its diagonal, is the inverse's row of
    feature f among the features from f on."""
    inverse, _ = dpotri(cholesky(covariance, lower=True, check_finite=False), lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    factor: Array = cholesky(inverse, lower=False, check_finite=False)
    return factor
