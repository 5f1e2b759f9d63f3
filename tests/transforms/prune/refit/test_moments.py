"""Moments and fits against numpy's least squares, and elimination against fits from scratch."""

from __future__ import annotations

import numpy as np

from trimton.transforms.prune.refit.elimination import Reader, eliminate
from trimton.transforms.prune.refit.moments import Moments
from trimton.transforms.prune.refit.solve import fit


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_moments_of_parts_add_up_to_those_of_the_whole() -> None:
    x, r = normal(90, 4), normal(90, 2, seed=1)
    whole = Moments.of(x, r)
    parts = Moments.of(x[:20], r[:20]) + Moments.of(x[20:], r[20:])
    np.testing.assert_allclose(parts.gram, whole.gram)
    np.testing.assert_allclose(parts.cross, whole.cross)
    assert (parts.count, round(parts.squares, 6)) == (90, round(whole.squares, 6))


def test_error_is_that_of_the_rows() -> None:
    x, r, change, constant = normal(50, 4), normal(50, 2, seed=1), normal(4, 2, seed=2), normal(2)
    by_hand = ((x @ change + constant - r) ** 2).sum(axis=1).mean()
    assert np.isclose(Moments.of(x, r).error(change, constant), by_hand)


def test_a_fit_is_that_of_least_squares() -> None:
    x = normal(500, 5) + 3
    r = x @ normal(5, 3, seed=1) + 2 + 0.1 * normal(500, 3, seed=2)
    found = fit(Moments.of(x, r), None)
    assert found is not None
    with_constant = np.hstack([x, np.ones((500, 1))])
    best = np.linalg.lstsq(with_constant, r, rcond=None)[0]
    np.testing.assert_allclose(found.change, best[:-1], atol=1e-3)
    np.testing.assert_allclose(found.constant, best[-1], atol=1e-2)
    assert found.after < 0.05 < found.before


def test_noise_is_not_fitted_where_held_out_rows_say_so() -> None:
    """As many features as rows: without a judge the fit would follow the noise."""
    x, noise = normal(40, 40), normal(40, 2, seed=1)
    judge = Moments.of(normal(400, 40, seed=2), normal(400, 2, seed=3))
    found = fit(Moments.of(x, noise), judge)
    unjudged = fit(Moments.of(x, noise), None)
    assert unjudged is not None
    assert found is None or np.abs(found.change).max() < np.abs(unjudged.change).max() / 2


def error_without(x: np.ndarray, y: np.ndarray, gone: np.ndarray) -> float:
    """The squared error of y on the columns of x that are left, fitted from scratch."""
    left = np.delete(x, gone, axis=1)
    best = np.linalg.lstsq(left, y, rcond=None)[0]
    return float(((left @ best - y) ** 2).sum(axis=1).mean())


def test_elimination_errors_are_those_of_fits_from_scratch() -> None:
    mixing = normal(12, 12, seed=4)
    x = normal(2000, 12) @ mixing
    weights = normal(12, 3, seed=5)
    columns = np.arange(12).reshape(6, 2)
    variance = 7.0
    reader = Reader(x.T @ x / len(x), weights, columns, variance)
    found = eliminate([reader])
    assert sorted(found.order) == list(range(6))
    for gone in range(1, 6):
        exact = error_without(x, x @ weights, columns[found.order[:gone]].reshape(-1))
        assert np.isclose(found.errors[gone - 1] * variance, exact, rtol=1e-6)


def test_every_step_of_an_elimination_is_the_cheapest() -> None:
    x = normal(1000, 8) @ normal(8, 8, seed=1)
    weights = normal(8, 2, seed=2)
    columns = np.arange(8).reshape(8, 1)
    found = eliminate([Reader(x.T @ x / len(x), weights, columns, 1.0)])
    gone: list[int] = []
    for chosen in found.order[:-1]:
        errors = {
            c: error_without(x, x @ weights, np.array([*gone, c]))
            for c in range(8)
            if c not in gone
        }
        assert min(errors, key=errors.__getitem__) == chosen
        gone.append(int(chosen))


def test_a_given_order_is_followed() -> None:
    x = normal(500, 4)
    reader = Reader(x.T @ x / len(x), normal(4, 2, seed=1), np.arange(4).reshape(4, 1), 1.0)
    order = np.array([2, 0, 3, 1])
    found = eliminate([reader, reader], order)
    assert list(found.order) == list(order)
    assert np.isclose(found.errors[-1], 2 * eliminate([reader]).errors[-1])
