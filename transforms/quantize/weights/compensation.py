"""Rounding weights one after the other, each making up for the errors of those before it.

The output error of a layer is quadratic in the errors of its weights, with the second moments of
what it reads as the matrix. Once a weight is rounded, the best that those still free can do is
known in closed form: they move by the error times a row of the triangular factor of the inverse.

Source: Hassibi et al. 1993, "Optimal Brain Surgeon and general network pruning"; Frantar and
Alistarh 2022, "Optimal Brain Compression", arXiv:2208.11580; Frantar et al. 2023, "GPTQ",
arXiv:2210.17323.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky
from scipy.linalg.lapack import dtrtri

from trimton.transforms.quantize.encoding import Array
from trimton.transforms.quantize.weights.encode import rounded
from trimton.transforms.quantize.weights.pairs import PAIR_LIMIT, WEIGHT_LIMIT

# Share of the mean second moment that is added to all: weights of inputs that hardly vary would
# otherwise take up any error.
_DAMPING = 0.01
# Terms whose corrections of all later ones are gathered into one matrix product. Even: a pair is
# never split.
_BLOCK = 64


def compensated_rounding(rows: Array, scale: Array, gram: Array, *, is_paired: bool) -> Array:
    """Integers for ``rows`` [outputs, terms] that lose less of the output than the closest do.

    ``scale`` [outputs] is given, ``gram`` [terms, terms] are the (centred, where the layer has a
    bias) second moments of what the terms multiply. Floats of whole numbers, -127 ... 127; with
    ``is_paired`` no pair of them saturates. An output that gains nothing is rounded plainly.
    """
    steps = rows.astype(np.float64) / scale[:, None]
    plain = rounded(rows, scale, is_paired=is_paired)
    damped = _damped(gram)
    order = _order(damped, is_paired)
    factor = _factor(damped[np.ix_(order, order)])
    found = np.empty_like(steps)
    found[:, order] = _compensate(np.ascontiguousarray(steps.T[order]), factor, is_paired).T
    is_better = _loss(found - steps, gram) < _loss(plain - steps, gram)
    return np.where(is_better[:, None], found, plain)


def output_loss(rows: Array, integers: Array, scale: Array, gram: Array) -> Array:
    """The mean squared error of each output, [outputs], that rounding to ``integers`` causes."""
    return _loss(integers * scale[:, None] - rows, gram)


def _loss(errors: Array, gram: Array) -> Array:
    loss: Array = np.einsum("ij,ij->i", errors @ gram, errors)
    return loss


def _damped(gram: Array) -> Array:
    damped = gram.astype(np.float64, copy=True)
    mean = float(np.trace(damped)) / len(damped)
    damped[np.diag_indices_from(damped)] += max(_DAMPING * mean, np.finfo(np.float64).tiny)
    return damped


def _order(gram: Array, is_paired: bool) -> Array:
    """Terms by falling second moment, those that matter most while most others are free.

    The two of a pair stay together, the first of them first.
    """
    moments = np.diagonal(gram)
    if not is_paired:
        return np.argsort(-moments, kind="stable")
    even = len(moments) // 2 * 2
    pairs = np.argsort(-moments[:even].reshape(-1, 2).sum(axis=1), kind="stable")
    return np.concatenate([np.stack([2 * pairs, 2 * pairs + 1], axis=1).ravel(), [even]])[
        : len(moments)
    ]


def _factor(gram: Array) -> Array:
    """The upper triangular U with U'U the inverse of ``gram``.

    With the lower factor L of the reversed matrix, gram = M M' for the upper M = reversed L, and
    U is the inverse of M.
    """
    lower = cholesky(gram[::-1, ::-1], lower=True, check_finite=False)
    inverse, info = dtrtri(np.asfortranarray(lower[::-1, ::-1]), lower=0)
    if info:
        raise ValueError("the second moments are not positive definite")
    factor: Array = np.triu(inverse)
    return factor


def _compensate(steps: Array, factor: Array, is_paired: bool) -> Array:
    """Round ``steps`` [terms, outputs], which are spent on it, from the first term to the last."""
    made = np.empty_like(steps)
    for start in range(0, len(steps), _BLOCK):
        block = steps[start : start + _BLOCK]
        end = start + len(block)
        errors = np.empty_like(block)
        inner = factor[start:end, start:end]
        for k, free in enumerate(block):
            if not is_paired:
                whole = np.clip(np.rint(free), -WEIGHT_LIMIT, WEIGHT_LIMIT)
            elif k % 2:
                whole = _second_of_pair(free, made[start + k - 1])
            elif k + 1 == len(block):
                whole = np.clip(np.rint(free), -WEIGHT_LIMIT, WEIGHT_LIMIT)
            else:
                whole = _first_of_pair(free, block[k + 1], inner[k : k + 2, k : k + 2])
            made[start + k] = whole
            errors[k] = (free - whole) / inner[k, k]
            block[k + 1 :] -= np.outer(inner[k, k + 1 :], errors[k])
        steps[end:] -= factor[start:end, end:].T @ errors
    return made


def _first_of_pair(free: Array, neighbour: Array, factor: Array) -> Array:
    """Integers for ``free`` that leave its neighbour, after its correction, enough room.

    Where the two would saturate they share the limit, at the least of the quadratic that both
    errors make along that line. ``factor`` [2, 2] is that of the pair.
    """
    whole = np.clip(np.rint(free), -WEIGHT_LIMIT, WEIGHT_LIMIT)
    share = factor[0, 1] / factor[0, 0]
    other = np.rint(neighbour - (free - whole) * share)
    is_over = (whole * other > 0) & (np.abs(whole + other) > PAIR_LIMIT)
    if not is_over.any():
        return whole
    sign = np.sign(whole[is_over])
    a, b = sign * free[is_over], sign * neighbour[is_over]
    weight = (factor[0, 0] / factor[1, 1]) ** 2
    slope = 1 + share
    best = (a - weight * slope * (b - PAIR_LIMIT - share * a)) / (1 + weight * slope**2)
    whole[is_over] = sign * np.clip(np.rint(best), 1, WEIGHT_LIMIT)
    return whole


def _second_of_pair(free: Array, first: Array) -> Array:
    """The integers closest to ``free`` that do not saturate together with ``first``."""
    high = np.minimum(WEIGHT_LIMIT, PAIR_LIMIT - np.maximum(first, 0))
    low = -np.minimum(WEIGHT_LIMIT, PAIR_LIMIT - np.maximum(-first, 0))
    return np.clip(np.rint(free), low, high)
