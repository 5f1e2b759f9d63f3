"""Principal components of a layer's responses, and the factors that keep the first of them.

A linear layer makes y = x W. Among all matrices of rank r, W V V' comes closest to it on given
inputs, where V [outputs, r] are the first principal components of y: the squared error is the
variance along the others. So the layer can be computed as x (W V), r values, times V'.

That is the solution of Zhang et al. (2015, arXiv:1505.06798) for convolutions. Whitening the
inputs with a Cholesky factor L of their second moments and truncating the SVD of L' W (Wang et
al., 2024, SVD-LLM, arXiv:2403.07378) gives the same matrix: its right singular vectors are the
eigenvectors of W' L L' W, which is the covariance of y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from trimton.transforms.graph.edit import Array
from trimton.transforms.prune.refit.moments import Moments

_SMALLEST = 1e-30


@dataclass(frozen=True)
class Spectrum:
    """``variances`` [outputs] along the principal components, the largest first, and these:
    ``components`` [outputs, outputs], one a column."""

    variances: Array
    components: Array

    def kept(self, rank: int) -> float:
        """The share of the responses' variance along the first ``rank`` components."""
        return 1.0 - self.lost(rank)

    def lost(self, rank: int) -> float:
        """The share along all others: the least error of a layer of that rank."""
        total = max(float(self.variances.sum()), _SMALLEST)
        return float(self.variances[rank:].sum()) / total

    def rank_for(self, energy: float) -> int:
        """The least rank that keeps ``energy``, a share of the variance."""
        kept = np.cumsum(self.variances) / max(float(self.variances.sum()), _SMALLEST)
        return min(int(np.searchsorted(kept, energy)) + 1, len(kept))


@dataclass(frozen=True)
class Factors:
    """x ``reduce`` [features, rank] ``expand`` [rank, outputs], plus ``shift`` [outputs]."""

    reduce: Array
    expand: Array
    shift: Array

    @property
    def rank(self) -> int:
        """How many values stand between the two layers."""
        return len(self.expand)

    @property
    def product(self) -> Array:
        """The one matrix [features, outputs] that the two stand for."""
        both: Array = self.reduce @ self.expand
        return both


def spectrum(covariance: Array) -> Spectrum:
    """The principal components of values with this covariance [outputs, outputs]."""
    variances, components = eigh(covariance, check_finite=False)
    return Spectrum(np.maximum(variances[::-1], 0.0), components[:, ::-1])


def response_covariance(responses: Moments) -> tuple[Array, Array]:
    """(covariance [outputs, outputs], mean [outputs]) of values given by their moments."""
    mean = responses.x / responses.count
    covariance: Array = responses.gram / responses.count - np.outer(mean, mean)
    return covariance, mean


def factors(weights: Array, components: Spectrum, rank: int, mean: Array) -> Factors:
    """The layer ``weights`` [features, outputs] along its first components.

    ``mean`` [outputs] is that of its responses without bias; what they lose of it is the shift.
    """
    first = components.components[:, :rank]
    return Factors(weights @ first, first.T, mean - (mean @ first) @ first.T)
