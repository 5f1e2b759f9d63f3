"""Compensated rounding in blocks: less error where inputs are correlated, never more."""

from __future__ import annotations

import numpy as np
import pytest

from trimton.transforms.quantize.weight_only.blocks import BlockFormat, closest_blocks
from trimton.transforms.quantize.weight_only.compensation import compensated_blocks, output_loss

FORMATS = [BlockFormat(4, 16), BlockFormat(4, 32, is_symmetric=False), BlockFormat(8, 16)]


@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("terms", [48, 150])
def test_correlated_inputs_lose_less(form: BlockFormat, terms: int) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((400, terms)) @ rng.standard_normal((terms, terms))
    rows = rng.standard_normal((20, terms)).astype(np.float32)
    gram = inputs.T @ inputs
    plain = closest_blocks(rows, form)

    made = compensated_blocks(rows, plain, gram, form)

    before, after = output_loss(rows, plain, gram), output_loss(rows, made, gram)
    assert (after <= before).all()
    assert after.sum() < 0.8 * before.sum()
    np.testing.assert_array_equal(made.scales, plain.scales)
    assert made.integers.max() <= form.largest
    # The loss is that of the outputs themselves.
    error = inputs @ (made.dequantised() - rows).T.astype(np.float64)
    np.testing.assert_allclose(np.square(error).sum(axis=0), after, rtol=1e-6)


def test_independent_inputs_gain_nothing_and_lose_nothing() -> None:
    form = BlockFormat(4, 16)
    rows = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)
    plain = closest_blocks(rows, form)

    made = compensated_blocks(rows, plain, np.eye(64), form)

    np.testing.assert_array_equal(made.integers, plain.integers)


def test_inputs_that_are_always_zero_do_not_disturb() -> None:
    form = BlockFormat(4, 16)
    rows = np.random.default_rng(2).standard_normal((4, 32)).astype(np.float32)
    plain = closest_blocks(rows, form)

    made = compensated_blocks(rows, plain, np.zeros((32, 32)), form)

    np.testing.assert_array_equal(made.integers, plain.integers)
