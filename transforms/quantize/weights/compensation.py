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
    """Integers for ``rows`` [groups, outputs, terms] that lose less than the closest do.

    Each group is a layer by itself. ``scale`` [groups, outputs] is given, ``gram`` [groups,
    terms, terms] are the (centred, where the layer has a bias) second moments of what the terms
    multiply. Floats of whole numbers, -127 ... 127; with ``is_paired`` no pair of them saturates.
    An output that gains nothing is rounded plainly.
    """
    steps = rows.astype(np.float64) / scale[:, :, None]
    flat = rounded(rows.reshape(-1, rows.shape[2]), scale.ravel(), is_paired=is_paired)
    plain = flat.reshape(rows.shape)
    damped = _damped(gram)
    order = _order(damped, is_paired)
    turned = np.take_along_axis(steps.transpose(0, 2, 1), order[:, :, None], axis=1)
    made = _compensate(turned, _factors(damped, order), is_paired)
    found = np.empty_like(steps)
    np.put_along_axis(found, order[:, None, :], made.transpose(0, 2, 1), axis=2)
    is_better = _loss(found - steps, gram) < _loss(plain - steps, gram)
    return np.where(is_better[:, :, None], found, plain)


def output_loss(rows: Array, integers: Array, scale: Array, gram: Array) -> Array:
    """The mean squared error that ``integers`` cause, [groups, outputs]."""
    return _loss(integers.astype(np.float64) * scale[:, :, None] - rows, gram)


def _loss(errors: Array, gram: Array) -> Array:
    loss: Array = np.einsum("gij,gij->gi", errors @ gram, errors)
    return loss


def _damped(gram: Array) -> Array:
    damped = gram.astype(np.float64, copy=True)
    places = np.arange(gram.shape[1])
    mean = damped[:, places, places].mean(axis=1, keepdims=True)
    damped[:, places, places] += np.maximum(_DAMPING * mean, np.finfo(np.float64).tiny)
    return damped


def _order(gram: Array, is_paired: bool) -> Array:
    """Terms [groups, terms] by falling second moment: those that matter, while most are free.

    The two of a pair stay together, the first of them first.
    """
    moments = np.diagonal(gram, axis1=1, axis2=2)
    if not is_paired:
        return np.argsort(-moments, axis=1, kind="stable")
    groups, terms = moments.shape
    even = terms // 2 * 2
    pairs = moments[:, :even].reshape(groups, -1, 2).sum(axis=2)
    first = 2 * np.argsort(-pairs, axis=1, kind="stable")
    order = np.stack([first, first + 1], axis=2).reshape(groups, even)
    last = np.broadcast_to(np.arange(even, terms), (groups, terms - even))
    return np.concatenate([order, last], axis=1)


def _factors(gram: Array, order: Array) -> Array:
    """For each group the upper triangular U with U'U the inverse of ``gram`` put in ``order``."""
    return np.stack([_factor(one[np.ix_(o, o)]) for one, o in zip(gram, order, strict=True)])


def _factor(gram: Array) -> Array:
    """With the lower factor L of the reversed matrix, gram = M M' for the upper M = reversed L,
    and U is the inverse of M."""
    lower = cholesky(gram[::-1, ::-1], lower=True, check_finite=False)
    inverse, info = dtrtri(np.asfortranarray(lower[::-1, ::-1]), lower=0)
    if info:
        raise ValueError("the second moments are not positive definite")
    factor: Array = np.triu(inverse)
    return factor


def _compensate(steps: Array, factor: Array, is_paired: bool) -> Array:
    """Round ``steps`` [groups, terms, outputs], which are spent on it, from the first term on."""
    made = np.empty_like(steps)
    terms = steps.shape[1]
    for start in range(0, terms, _BLOCK):
        end = min(start + _BLOCK, terms)
        block, inner = steps[:, start:end], factor[:, start:end, start:end]
        errors = np.empty_like(block)
        for k in range(end - start):
            free = block[:, k]
            if is_paired and k % 2:
                whole = _second_of_pair(free, made[:, start + k - 1])
            elif is_paired and k + 1 < end - start:
                whole = _first_of_pair(free, block[:, k + 1], inner[:, k : k + 2, k : k + 2])
            else:
                whole = np.clip(np.rint(free), -WEIGHT_LIMIT, WEIGHT_LIMIT)
            made[:, start + k] = whole
            errors[:, k] = (free - whole) / inner[:, k, k, None]
            block[:, k + 1 :] -= inner[:, k, k + 1 :, None] * errors[:, k, None, :]
        steps[:, end:] -= factor[:, start:end, end:].transpose(0, 2, 1) @ errors
    return made


def _first_of_pair(free: Array, neighbour: Array, factor: Array) -> Array:
    """Integers for ``free`` [groups, outputs] that leave room to its neighbour as corrected.

    Where the two would saturate they share the limit, at the least of the quadratic that both
    errors make along that line. ``factor`` [groups, 2, 2] is that of the pair.
    """
    whole = np.clip(np.rint(free), -WEIGHT_LIMIT, WEIGHT_LIMIT)
    share = np.broadcast_to((factor[:, 0, 1] / factor[:, 0, 0])[:, None], free.shape)
    other = np.rint(neighbour - (free - whole) * share)
    is_over = (whole * other > 0) & (np.abs(whole + other) > PAIR_LIMIT)
    if not is_over.any():
        return whole
    weight = np.broadcast_to(((factor[:, 0, 0] / factor[:, 1, 1]) ** 2)[:, None], free.shape)
    sign, share, weight = np.sign(whole[is_over]), share[is_over], weight[is_over]
    a, b = sign * free[is_over], sign * neighbour[is_over]
    slope = 1 + share
    best = (a - weight * slope * (b - PAIR_LIMIT - share * a)) / (1 + weight * slope**2)
    whole[is_over] = sign * np.clip(np.rint(best), 1, WEIGHT_LIMIT)
    return whole


def _second_of_pair(free: Array, first: Array) -> Array:
    """The integers closest to ``free`` that do not saturate together with ``first``."""
    high = np.minimum(WEIGHT_LIMIT, PAIR_LIMIT - np.maximum(first, 0))
    low = -np.minimum(WEIGHT_LIMIT, PAIR_LIMIT - np.maximum(-first, 0))
    return np.clip(np.rint(free), low, high)
