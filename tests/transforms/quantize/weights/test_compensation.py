from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimton.transforms.quantize.weights.compensation import compensated_rounding, output_loss
from trimton.transforms.quantize.weights.encode import best_scales, rounded
from trimton.transforms.quantize.weights.pairs import saturating_pairs


def correlated(rows: int, terms: int, seed: int) -> np.ndarray:
    """Inputs of a layer whose terms depend on each other, as neighbouring channels do."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(terms // 3 + 1, terms))
    return rng.normal(size=(rows, len(mix))) @ mix + 0.3 * rng.normal(size=(rows, terms))


def compensated(rows, scale, gram, is_paired) -> np.ndarray:
    """Of a layer with a single group."""
    return compensated_rounding(rows[None], scale[None], gram[None], is_paired=is_paired)[0]


def loss(rows, integers, scale, gram) -> np.ndarray:
    return output_loss(rows[None], integers[None], scale[None], gram[None])[0]


def weights(outputs: int, terms: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(outputs, terms)).astype(np.float32)


@pytest.mark.parametrize("is_paired", [False, True])
def test_outputs_on_unseen_inputs_are_closer_than_with_plain_rounding(is_paired) -> None:
    rows, inputs = weights(32, 96, 0), correlated(4000, 96, 1)
    seen, unseen = inputs[:2000], inputs[2000:]
    scale = best_scales(rows, 32, is_paired=is_paired)
    plain = rounded(rows, scale, is_paired=is_paired)
    found = compensated(rows, scale, seen.T @ seen / len(seen), is_paired)
    exact = unseen @ rows.T
    error = np.square(unseen @ (found * scale[:, None]).T - exact).mean()
    assert error < 0.7 * np.square(unseen @ (plain * scale[:, None]).T - exact).mean()


@given(
    outputs=st.integers(1, 6),
    terms=st.integers(1, 150),
    size=st.floats(1, 1000),
    is_paired=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_no_output_is_worse_and_no_pair_saturates(outputs, terms, size, is_paired, seed) -> None:
    rows, inputs = size * weights(outputs, terms, seed), correlated(64, terms, seed)
    gram = inputs.T @ inputs
    scale = best_scales(rows, outputs, is_paired=is_paired) / 1.5
    found = compensated(rows, scale, gram, is_paired)
    plain = rounded(rows, scale, is_paired=is_paired)
    assert np.abs(found).max() <= 127
    assert (found == np.rint(found)).all()
    assert not is_paired or saturating_pairs(found) == 0
    before = loss(rows, plain, scale, gram)
    assert (loss(rows, found, scale, gram) <= before * (1 + 1e-5)).all()


def test_independent_inputs_leave_nothing_to_make_up_for() -> None:
    rows = weights(8, 40, 0)
    scale = best_scales(rows, 8, is_paired=False)
    found = compensated(rows, scale, np.eye(40), False)
    assert np.array_equal(found, rounded(rows, scale, is_paired=False))


def test_a_twin_input_makes_up_for_an_error() -> None:
    twins = np.array([[1.0, 1.0], [1.0, 1.0]])
    found = compensated(np.array([[3.4, 5.3]]), np.ones(1), twins, False)
    assert found.sum() == 9


def test_inputs_that_never_change_are_no_obstacle() -> None:
    rows = weights(4, 10, 0)
    found = compensated(rows, np.full(4, 0.1), np.zeros((10, 10)), True)
    assert np.array_equal(found, rounded(rows, np.full(4, 0.1), is_paired=True))


def test_a_crowded_pair_is_shared_out_by_what_its_inputs_do() -> None:
    crowded, scale = np.array([[100.0, 100.0]]), np.ones(1)
    gram = np.diag([100.0, 1.0])
    found = compensated(crowded, scale, gram, True)[0]
    assert found.sum() == 128
    assert found[0] > 95


def test_groups_are_rounded_each_by_itself() -> None:
    rows = np.stack([weights(3, 20, seed) for seed in range(4)])
    inputs = [correlated(200, 20, seed) for seed in range(4)]
    gram = np.stack([x.T @ x for x in inputs])
    scale = np.full((4, 3), 0.05)
    for is_paired in (False, True):
        together = compensated_rounding(rows, scale, gram, is_paired=is_paired)
        for group, integers in enumerate(together):
            alone = compensated(rows[group], scale[group], gram[group], is_paired)
            assert np.array_equal(integers, alone)
