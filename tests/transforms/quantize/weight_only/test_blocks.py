"""Blocks: bytes as ONNX Runtime's own quantiser makes them, errors within half a step or less."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.capi._pybind_state import quantize_matmul_4bits, quantize_matmul_8bits

from trimton.transforms.graph.edit import Array
from trimton.transforms.quantize.weight_only.blocks import (
    BlockFormat,
    closest_blocks,
    nearest_blocks,
)
from trimton.transforms.quantize.weight_only.packing import pack, unpack

ORACLES = {4: quantize_matmul_4bits, 8: quantize_matmul_8bits}
FORMATS = [BlockFormat(b, n, s) for b in (4, 8) for n in (16, 32, 128) for s in (True, False)]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def oracle(weight: Array, form: BlockFormat) -> tuple[Array, Array, Array]:
    """Packed integers, scales and zero points by ONNX Runtime for ``weight`` [terms, outputs]."""
    terms, outputs = weight.shape
    blocks = -(-terms // form.block)
    packed = np.zeros((outputs, blocks, form.block * form.bits // 8), np.uint8)
    zeros = np.zeros((outputs, -(-blocks * form.bits // 8)), np.uint8)
    scales = np.zeros((outputs, blocks), np.float32)
    padded = np.pad(weight, ((0, blocks * form.block - terms), (0, 0)))
    ORACLES[form.bits](packed, padded, scales, zeros, form.block, outputs, terms, form.is_symmetric)
    return packed, scales, zeros


@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("terms", [96, 100, 256])
def test_nearest_rounding_gives_the_bytes_of_onnx_runtime(form: BlockFormat, terms: int) -> None:
    weight = normal(terms, 24)

    blocks = nearest_blocks(weight.T, form)

    packed, scales, zeros = oracle(weight, form)
    np.testing.assert_array_equal(pack(blocks.integers, form.bits), packed)
    np.testing.assert_array_equal(blocks.scales, scales)
    if not form.is_symmetric:
        count = blocks.scales.shape[1]
        np.testing.assert_array_equal(blocks.zero_points, unpack(zeros, form.bits, count))


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_chosen_scales_lose_less_than_those_that_hold_all(form: BlockFormat) -> None:
    rows = normal(16, 200, seed=1)

    nearest, closest = nearest_blocks(rows, form), closest_blocks(rows, form)

    errors = [np.square(b.dequantised() - rows).sum() for b in (nearest, closest)]
    assert errors[1] < errors[0]


@given(
    st.sampled_from(FORMATS),
    st.integers(1, 70),
    st.floats(1e-6, 1e6),
    st.integers(0, 10_000),
)
def test_nearest_blocks_are_within_half_a_step(
    form: BlockFormat, terms: int, size: float, seed: int
) -> None:
    rows = normal(3, terms, seed=seed) * np.float32(size)

    blocks = nearest_blocks(rows, form)

    steps = np.repeat(np.abs(blocks.scales), form.block, axis=1)[:, :terms]
    error = np.abs(blocks.dequantised() - rows)
    # The larger end of a symmetric block is exact; the other may lack one step.
    allowed = 1.0 if form.is_symmetric else 0.5
    assert (error <= steps * (allowed + 1e-3)).all()


def test_blocks_of_zeros_stay_zeros() -> None:
    rows = np.zeros((2, 40), np.float32)
    for form in FORMATS:
        assert not closest_blocks(rows, form).dequantised().any()


@given(st.sampled_from([2, 4, 8]), st.integers(1, 33), st.integers(0, 10_000))
def test_unpack_is_the_inverse_of_pack(bits: int, count: int, seed: int) -> None:
    integers = np.random.default_rng(seed).integers(0, 1 << bits, (3, count), dtype=np.uint8)

    packed = pack(integers, bits)

    assert packed.shape == (3, -(-count * bits // 8))
    np.testing.assert_array_equal(unpack(packed, bits, count), integers)


def test_the_first_neighbour_stands_in_the_lowest_bits() -> None:
    assert pack(np.array([1, 2, 3], np.uint8), 4).tolist() == [0x21, 0x03]
