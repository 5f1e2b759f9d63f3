from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimton.transforms.quantize.encoding import Encoding
from trimton.transforms.quantize.sites import WeightSite
from trimton.transforms.quantize.weights import encode_weight


def site(axis: int | None, kernel: str | None = None) -> WeightSite:
    return WeightSite("layer", "w", axis, ir.DataType.INT8, kernel)


def heavy_tailed(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(3, shape).astype(np.float32)


def extremes_encoding(weight: np.ndarray, axis: int) -> Encoding:
    others = tuple(a for a in range(weight.ndim) if a != axis)
    scale = (np.abs(weight).max(axis=others) / 127).astype(np.float32)
    return Encoding(ir.DataType.INT8, scale, np.zeros(len(scale), np.int8), axis, low=-127)


def channel_errors(weight, integers, encoding) -> np.ndarray:
    squares = np.square(encoding.dequantise(integers) - weight)
    return squares.sum(axis=tuple(a for a in range(weight.ndim) if a != encoding.axis))


def squared_error(weight, integers, encoding) -> float:
    return float(np.square(encoding.dequantise(integers) - weight).sum())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scales_lose_less_than_those_of_the_extremes(axis) -> None:
    weight = heavy_tailed((24, 31, 20))
    integers, encoding = encode_weight(weight, site(axis))
    plain = extremes_encoding(weight, axis)
    assert encoding.scale.shape == (weight.shape[axis],)
    error = channel_errors(weight, integers, encoding)
    of_extremes = channel_errors(weight, plain.quantise(weight), plain)
    assert (error <= of_extremes * 1.0001).all()
    assert (error / of_extremes).mean() < 0.99


def test_integers_are_those_of_the_encoding() -> None:
    weight = heavy_tailed((8, 50))
    integers, encoding = encode_weight(weight, site(0))
    assert np.array_equal(integers, encoding.quantise(weight))


def test_one_scale_serves_a_whole_tensor() -> None:
    weight = heavy_tailed((3, 16, 16))
    integers, encoding = encode_weight(weight, site(None, "matmul"))
    assert encoding.axis is None
    assert encoding.scale.shape == ()
    assert np.abs(encoding.dequantise(integers) - weight).mean() < 0.05


def test_a_channel_of_zeros_has_a_scale() -> None:
    weight = heavy_tailed((4, 9))
    weight[2] = 0
    integers, encoding = encode_weight(weight, site(0))
    assert not integers[2].any()
    assert encoding.scale[2] == pytest.approx(encoding.scale[[0, 1, 3]].min(), rel=1.0)
    assert not encode_weight(np.zeros((2, 3), np.float32), site(0))[0].any()


def test_scales_stay_above_the_smallest_allowed() -> None:
    weight = heavy_tailed((4, 9))
    floor = np.array([0.0, 5.0, 0.0, 1.0], np.float32)
    _, encoding = encode_weight(weight, site(0), floor)
    assert (encoding.scale >= floor).all()


def test_an_unknown_order_of_summation_is_refused() -> None:
    with pytest.raises(ValueError, match="diagonal"):
        encode_weight(heavy_tailed((4, 4)), site(0, "diagonal"))


@given(
    terms=st.integers(1, 37),
    outputs=st.integers(1, 9),
    axis=st.sampled_from([0, 1]),
    per_channel=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_sums_of_a_matrix_product_are_exact_in_16_bits(
    matmul_in_16_bits, terms, outputs, axis, per_channel, seed
) -> None:
    shape = (outputs, terms) if axis == 0 else (terms, outputs)
    kernel = "matmul_transposed" if axis == 0 else "matmul"
    chosen = site(axis if per_channel else None, kernel)
    integers, _ = encode_weight(heavy_tailed(shape, seed), chosen)
    matrix = integers.T if axis == 0 else integers
    worst = _worst_activations(matrix)
    exact = worst.astype(np.int32) @ matrix.astype(np.int32)
    assert np.array_equal(matmul_in_16_bits(worst, matrix), exact)


@given(
    groups=st.integers(1, 3),
    channels=st.integers(1, 5),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_sums_of_a_convolution_are_exact_in_16_bits(
    convolution_in_16_bits, groups, channels, kernel, seed
) -> None:
    weight = heavy_tailed((4 * groups, channels, *kernel), seed)
    integers, _ = encode_weight(weight, site(0, "conv"))
    image = np.full((1, groups * channels, 4, 5), 255, np.uint8)
    bright = np.random.default_rng(seed).choice([0, 255], image.shape).astype(np.uint8)
    for pixels in (image, bright):
        exact = _exact_convolution(pixels, integers, groups)
        assert np.array_equal(convolution_in_16_bits(pixels, integers, groups), exact)


def test_sums_of_weights_made_without_a_bound_saturate(matmul_in_16_bits) -> None:
    weight = np.abs(heavy_tailed((8, 32)))
    integers, _ = encode_weight(weight, site(0))
    activations = np.full((1, 32), 255, np.uint8)
    exact = activations.astype(np.int32) @ integers.T.astype(np.int32)
    assert not np.array_equal(matmul_in_16_bits(activations, integers.T), exact)


def test_the_bound_on_pairs_loses_little() -> None:
    weight = np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32)
    free = squared_error(weight, *encode_weight(weight, site(0)))
    bounded = squared_error(weight, *encode_weight(weight, site(0, "matmul_transposed")))
    seven_bits = extremes_encoding(weight, 0)
    halved = Encoding(ir.DataType.INT8, seven_bits.scale * 2, seven_bits.zero_point, 0)
    assert bounded < 2 * free
    assert bounded < 0.5 * squared_error(weight, halved.quantise(weight), halved)


def _worst_activations(matrix: np.ndarray) -> np.ndarray:
    """Activations that are largest where the weights of one output have one sign, and all 255."""
    rows = [np.full(len(matrix), 255), *(255 * (matrix.T > 0)), *(255 * (matrix.T < 0))]
    return np.stack(rows).astype(np.uint8)


def _exact_convolution(pixels: np.ndarray, weight: np.ndarray, groups: int) -> np.ndarray:
    outputs, channels, *kernel = weight.shape
    patches = np.lib.stride_tricks.sliding_window_view(pixels, kernel, axis=(2, 3))
    grouped = patches.reshape(len(pixels), groups, channels, *patches.shape[2:]).astype(np.int64)
    split = weight.reshape(groups, outputs // groups, channels, *kernel).astype(np.int64)
    made = np.einsum("bgchwij,gocij->bgohw", grouped, split)
    return made.reshape(len(pixels), outputs, *made.shape[3:])
