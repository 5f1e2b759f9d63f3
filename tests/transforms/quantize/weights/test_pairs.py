from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from trimton.transforms.quantize.weights.pairs import (
    PAIR_LIMIT,
    round_to_pairs,
    saturating_pairs,
)

steps = st.floats(-250, 250, width=32)


def _closest(a: float, b: float) -> float:
    """The least squared error of any pair that does not saturate, by trying all."""
    values = range(-127, 128)
    return min(
        (x - a) ** 2 + (y - b) ** 2
        for x, y in product(values, values)
        if x * y <= 0 or abs(x + y) <= PAIR_LIMIT
    )


@given(
    npst.arrays(np.float64, npst.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=steps)
)
def test_no_pair_saturates(rows) -> None:
    integers = round_to_pairs(rows)
    assert saturating_pairs(integers) == 0
    assert np.abs(integers).max() <= 127
    assert (integers == np.rint(integers)).all()


def test_the_closest_pair_is_taken() -> None:
    rng = np.random.default_rng(0)
    for a, b in rng.uniform(-200, 200, (12, 2)):
        x, y = round_to_pairs(np.array([[a, b]]))[0]
        assert (x - a) ** 2 + (y - b) ** 2 <= _closest(a, b) + 1e-9


def test_pairs_of_opposite_signs_are_only_rounded() -> None:
    assert round_to_pairs(np.array([[120.4, -126.7]])).tolist() == [[120, -127]]


def test_a_term_without_a_neighbour_is_only_rounded() -> None:
    assert round_to_pairs(np.array([[60.0, 50.0, 127.0]])).tolist() == [[60, 50, 127]]


def test_pairs_that_saturate_are_counted() -> None:
    rows = np.array([[127, 2, 64, 64], [-128, -1, 127, -127]], np.int8)
    assert saturating_pairs(rows) == 2
