"""Patterns keep what they say, in the order of the reduction axis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimton.core.errors import InputError
from trimton.transforms.sparsify.pattern import NofM, Unstructured, parse_pattern

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**31))
NEIGHBOURS = st.integers(2, 8).flatmap(lambda of: st.tuples(st.integers(1, of - 1), st.just(of)))


@given(NEIGHBOURS, SHAPES)
def test_the_largest_n_of_every_m_stay(pair: tuple[int, int], case: tuple[int, int, int]) -> None:
    kept, of = pair
    blocks, outputs, seed = case
    scores = np.random.default_rng(seed).integers(0, 4, (blocks * of, outputs)).astype(float)
    is_kept = NofM(kept, of).keep(scores, by_output=False)
    for block in range(blocks):
        for output in range(outputs):
            some = slice(block * of, (block + 1) * of)
            chosen, values = is_kept[some, output], scores[some, output]
            assert chosen.sum() == kept
            assert values[chosen].min() >= values[~chosen].max()


@settings(max_examples=50)
@given(st.floats(0.01, 0.99), SHAPES, st.booleans())
def test_the_share_asked_for_goes_and_it_is_the_smallest(
    ratio: float, case: tuple[int, int, int], by_output: bool
) -> None:
    features, outputs, seed = case
    scores = np.random.default_rng(seed).random((features, outputs))
    is_kept = Unstructured(ratio).keep(scores, by_output=by_output)
    columns = [(scores[:, o], is_kept[:, o]) for o in range(outputs)]
    for values, chosen in columns if by_output else [(scores.reshape(-1), is_kept.reshape(-1))]:
        assert (~chosen).sum() == round(len(values) * ratio)
        if chosen.any() and not chosen.all():
            assert values[chosen].min() > values[~chosen].max()


def test_indices_are_stored_as_sparse_tensor_cores_do() -> None:
    """Two bits for each of two values of four: 2:4 in 16 bits is 9/16 of the bytes."""
    assert NofM(2, 4).index_bits(64) == 32 * 2
    assert NofM(4, 8).index_bits(64) == 32 * 3
    assert Unstructured(0.9).index_bits(64) == 64


@pytest.mark.parametrize("text", ["4:2", "2:2", "0:4", "2", "a:b", "2:4:8", "-1:4", ":"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"pattern {text!r}: must be N:M with N below M"):
        parse_pattern(text)
