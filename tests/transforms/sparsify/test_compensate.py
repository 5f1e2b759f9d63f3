"""Compensation: exact where that can be computed, and never worse than a mask alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimton.transforms.sparsify.compensate import compensated, descend, surgeon
from trimton.transforms.sparsify.pattern import NofM, Pattern, Unstructured

PATTERNS: dict[str, Pattern] = {"2:4": NofM(2, 4), "1:8": NofM(1, 8), "half": Unstructured(0.5)}


def problem(features: int, outputs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(weights, covariance of features that depend on each other)."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3 * features, features)) @ rng.standard_normal((features, features))
    covariance = x.T @ x / len(x)
    return rng.standard_normal((features, outputs)), covariance + 0.01 * np.eye(
        features
    ) * np.trace(covariance) / features


def error(weights: np.ndarray, found: np.ndarray, covariance: np.ndarray) -> float:
    change = found - weights
    return float(np.einsum("fo,fg,go->", change, covariance, change))


def best(weights: np.ndarray, covariance: np.ndarray, is_kept: np.ndarray) -> np.ndarray:
    """The least-squares solution of every output by itself."""
    found = np.zeros_like(weights)
    for output, kept in enumerate(is_kept.T):
        right = covariance[kept] @ weights[:, output]
        found[kept, output] = np.linalg.solve(covariance[np.ix_(kept, kept)], right)
    return found


@pytest.mark.parametrize("name", PATTERNS)
def test_independent_features_lose_their_smallest_weights(name: str) -> None:
    """Nothing can make up for a weight, so magnitude decides and the others stay as they are."""
    weights, pattern = problem(64, 5)[0], PATTERNS[name]
    found, is_kept = surgeon(weights, np.eye(64), pattern)
    np.testing.assert_array_equal(is_kept, pattern.keep(weights**2, by_output=False))
    np.testing.assert_allclose(found, np.where(is_kept, weights, 0), atol=1e-12)


@pytest.mark.parametrize(("name", "most"), [("2:4", 0.5), ("1:8", 0.8), ("half", 0.5)])
def test_compensation_loses_far_less_than_a_mask(name: str, most: float) -> None:
    weights, covariance = problem(256, 16)
    pattern = PATTERNS[name]
    masked = np.where(pattern.keep(np.abs(weights), by_output=False), weights, 0)
    found = compensated(weights, covariance, pattern)
    assert (found != 0).mean() == pytest.approx(pattern.density)
    one_pass, _ = surgeon(weights, covariance, pattern)
    assert error(weights, found, covariance) < most * error(weights, masked, covariance)
    assert error(weights, found, covariance) < 0.9 * error(weights, one_pass, covariance)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**31))
def test_a_pass_is_followed_by_the_least_squares_solution(
    blocks: int, outputs: int, seed: int
) -> None:
    """With few features the conjugate gradients reach it exactly."""
    weights, covariance = problem(4 * blocks, outputs, seed)
    first, is_kept = surgeon(weights, covariance, NofM(2, 4))
    found = descend(first, weights, covariance, is_kept)
    assert not found[~is_kept].any()
    exact = error(weights, best(weights, covariance, is_kept), covariance)
    assert error(weights, found, covariance) <= exact * (1 + 1e-3) + 1e-9
    assert error(weights, first, covariance) >= exact * (1 - 1e-9)


def test_blocks_do_not_change_what_one_pass_finds() -> None:
    """200 features take two blocks of matrix products; by hand there is one row at a time."""
    weights, covariance = problem(200, 3)
    found, is_kept = surgeon(weights, covariance, NofM(2, 4))
    left, inverse = weights.copy(), np.linalg.inv(covariance)
    for row in range(200):
        if row % 4 == 0:
            # The diagonal entries that each of the four will have when its turn comes.
            later = [np.linalg.inv(covariance[r:, r:])[0, 0] for r in range(row, row + 4)]
            costs = left[row : row + 4] ** 2 / np.array(later)[:, None]
            gone = np.argsort(costs, axis=0)[:2]
        inverse = np.linalg.inv(covariance[row:, row:])
        for output in range(3):
            if row % 4 in gone[:, output]:
                left[row:, output] -= left[row, output] / inverse[0, 0] * inverse[0]
                left[row, output] = 0.0
    np.testing.assert_allclose(found, left, atol=1e-8)
    np.testing.assert_array_equal(is_kept, left != 0)
