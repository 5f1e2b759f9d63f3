"""Rounding a weight in blocks so that later weights of a row make up for the errors of earlier.

Scales and zero points stay those of the blocks. Source: Frantar et al. 2023, "GPTQ",
arXiv:2210.17323, with the order of falling second moments and static groups.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.linalg import cholesky, lapack

from trimton.transforms.graph.edit import Array
from trimton.transforms.quantize.weight_only.blocks import BlockFormat, Blocks

# Share of the mean second moment that is added to all: inputs that hardly vary would otherwise
# let their weights take up any error.
_DAMPING = 0.01
# Terms whose corrections of all later ones are gathered into one matrix product.
_TOGETHER = 64


def compensated_blocks(rows: Array, blocks: Blocks, gram: Array, form: BlockFormat) -> Blocks:
    """``blocks`` of ``rows`` [rows, terms] with integers that lose less of the output.

    ``gram`` [terms, terms] are the second moments of what the terms multiply. A row that gains
    nothing stays as it is.
    """
    terms = rows.shape[1]
    order = np.argsort(-np.diagonal(gram), kind="stable")
    scales = np.repeat(blocks.scales, form.block, axis=1)[:, :terms].astype(np.float64)
    zeros = np.repeat(blocks.zero_points, form.block, axis=1)[:, :terms].astype(np.float64)
    free = rows[:, order].astype(np.float64)
    made = _rounded(free, scales[:, order], zeros[:, order], _factor(gram, order), form.largest)
    integers = np.zeros((len(rows), blocks.integers[0].size), np.uint8)
    integers[:, order] = made.astype(np.uint8)
    new = replace(blocks, integers=integers.reshape(blocks.integers.shape))
    is_better = output_loss(rows, new, gram) < output_loss(rows, blocks, gram)
    kept = np.where(is_better[:, None, None], new.integers, blocks.integers)
    return replace(blocks, integers=kept)


def output_loss(rows: Array, blocks: Blocks, gram: Array) -> Array:
    """The squared error [rows] that ``blocks`` cause in each output, summed over samples."""
    error = blocks.dequantised().astype(np.float64) - rows
    loss: Array = np.einsum("ij,ij->i", error @ gram, error)
    return loss


def _factor(gram: Array, order: Array) -> Array:
    """The upper triangular U with U'U the inverse of the damped ``gram`` in ``order``."""
    damped = gram[np.ix_(order, order)].astype(np.float64)
    share = max(_DAMPING * float(np.diagonal(gram).mean()), float(np.finfo(np.float64).tiny))
    damped[np.diag_indices_from(damped)] += share
    # With L L' the reversed matrix, U is the inverse of the reversed L.
    lower = cholesky(damped[::-1, ::-1], lower=True, check_finite=False)
    inverse, info = lapack.dtrtri(np.asfortranarray(lower[::-1, ::-1]), lower=0)
    if info:
        raise ValueError("the second moments are not positive definite")
    factor: Array = np.triu(inverse)
    return factor


def _rounded(free: Array, scales: Array, zeros: Array, factor: Array, largest: int) -> Array:
    """Round the columns of ``free`` [rows, terms], which is spent on it, from the first on."""
    made = np.empty_like(free)
    inverse = np.divide(1.0, scales, where=scales != 0, out=np.zeros_like(scales))
    terms = free.shape[1]
    for start in range(0, terms, _TOGETHER):
        end = min(start + _TOGETHER, terms)
        errors = np.empty((len(free), end - start))
        for k in range(start, end):
            steps = np.rint(free[:, k] * inverse[:, k] + zeros[:, k])
            made[:, k] = np.clip(steps, 0, largest)
            kept = (made[:, k] - zeros[:, k]) * scales[:, k]
            errors[:, k - start] = (free[:, k] - kept) / factor[k, k]
            free[:, k + 1 : end] -= errors[:, k - start, None] * factor[k, k + 1 : end]
        free[:, end:] -= errors @ factor[start:end, end:]
    return made
