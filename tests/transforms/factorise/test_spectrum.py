"""Principal components of responses: the best matrix of a rank, whichever way it is derived."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import cholesky, solve_triangular, svd

from trimton.transforms.factorise.spectrum import factors, response_covariance, spectrum
from trimton.transforms.prune.refit.moments import Moments

CASES = st.tuples(st.integers(2, 12), st.integers(2, 12), st.integers(0, 2**31)).flatmap(
    lambda case: st.tuples(st.just(case), st.integers(1, min(case[0], case[1])))
)


def layer(features: int, outputs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(inputs [rows, features] that are correlated, weights [features, outputs])."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((400, features)) @ rng.standard_normal((features, features))
    return x + rng.standard_normal(features), rng.standard_normal((features, outputs))


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_the_error_is_the_variance_that_is_left_out(
    case: tuple[tuple[int, int, int], int],
) -> None:
    (features, outputs, seed), rank = case
    x, w = layer(features, outputs, seed)
    y = x @ w
    covariance, mean = response_covariance(Moments.of(y, np.zeros((len(y), 0))))
    components = spectrum(covariance)
    found = factors(w, components, rank, mean)
    error = np.square(x @ found.reduce @ found.expand + found.shift - y).mean(axis=0).sum()
    variance = y.var(axis=0).sum()
    assert np.isclose(error, components.lost(rank) * variance, atol=1e-8 * variance)
    assert found.reduce.shape == (features, rank)
    assert found.expand.shape == (rank, outputs)


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_whitening_and_truncating_the_svd_gives_the_same_matrix(
    case: tuple[tuple[int, int, int], int],
) -> None:
    (features, outputs, seed), rank = case
    x, w = layer(features, outputs, seed)
    centred = x - x.mean(axis=0)
    lower = cholesky(centred.T @ centred / len(x), lower=True)
    left, values, right = svd(lower.T @ w, full_matrices=False)
    if rank < len(values) and np.isclose(values[rank - 1], values[rank], rtol=1e-6):
        return  # either of two components is as good
    whitened = solve_triangular(lower.T, left[:, :rank] * values[:rank]) @ right[:rank]
    found = factors(w, spectrum(w.T @ (centred.T @ centred) @ w), rank, np.zeros(outputs))
    scale = np.abs(w).max() * np.linalg.cond(lower)
    np.testing.assert_allclose(found.reduce @ found.expand, whitened, atol=1e-9 * scale)


def test_the_rank_for_an_energy_is_the_least_that_keeps_it() -> None:
    components = spectrum(np.diag([6.0, 1.0, 2.0, 1.0]))
    assert [components.rank_for(energy) for energy in (0.5, 0.6, 0.79, 0.81, 0.95)] == [
        1,
        1,
        2,
        3,
        4,
    ]
    assert components.kept(2) == 0.8
