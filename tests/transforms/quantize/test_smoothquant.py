from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.graph.session import open_session, run
from trimton.transforms.graph.shapes import infer_shapes
from trimton.transforms.quantize.smoothquant import (
    ChannelRanges,
    expected_noise,
    smooth,
    smoothing_scales,
)

RNG = np.random.default_rng(0)
CHANNELS = 32
# Two channels are far larger than the others, as in transformers.
SIZES = np.where(np.isin(np.arange(CHANNELS), [3, 17]), 60.0, 1.0).astype(np.float32)
W = RNG.normal(size=(CHANNELS, 16)).astype(np.float32)
V = RNG.normal(size=(CHANNELS, 16)).astype(np.float32)


def rows() -> np.ndarray:
    return RNG.normal(size=(50, CHANNELS)).astype(np.float32)


def outputs(model: ir.Model, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return list(run(open_session(model), feed).values())


def op_types(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def quantised_product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """x @ w with one scale for x and one for each output of w, 8 bits each."""
    step = (max(x.max(), 0) - min(x.min(), 0)) / 255
    steps = np.abs(w).max(axis=0) / 127
    return (np.rint(x / step) * step) @ (np.rint(w / steps) * steps)


def test_scales_fold_into_a_normalisation_that_only_products_read(make_model) -> None:
    model = make_model(
        """g (float[N,32] x, float[32] s, float[32] b, float[32,16] w, float[16,32] v)
            => (float[N,16] y, float[N,16] z) {
            n = LayerNormalization(x, s, b)
            y = MatMul(n, w)
            z = Gemm<transB=1>(n, v)
        }""",
        s=SIZES,
        b=SIZES[::-1].copy(),
        w=W,
        v=V.T.copy(),
    )
    infer_shapes(model)
    feed = {"x": rows()}
    before, kinds = outputs(model, feed), op_types(model)
    steps = smooth(model, [feed])
    assert len(steps) == 1
    assert steps[0].count == 2
    assert op_types(model) == kinds
    for new, old in zip(outputs(model, feed), before, strict=True):
        assert np.array_equal(new, old)


def test_a_single_factor_that_the_runtime_fuses_in_gelu_stays_one(make_model) -> None:
    model = make_model(
        """g (float[N,32] x, float half, float[32,16] w) => (float[N,16] y) {
            h = Mul(half, x)
            y = MatMul(h, w)
        }""",
        half=np.float32(0.5),
        w=W,
    )
    infer_shapes(model)
    feed = {"x": rows() * SIZES}
    before = outputs(model, feed)
    assert len(smooth(model, [feed])) == 1
    assert op_types(model) == ["Mul", "Mul", "MatMul"]
    assert model.graph.initializers["half"].shape == ir.Shape([])
    assert np.array_equal(outputs(model, feed)[0], before[0])


def test_a_value_that_others_read_gets_a_mul_in_front_of_its_products(make_model) -> None:
    model = make_model(
        """g (float[N,32] x, float[32] s, float[32,16] w) => (float[N,16] y, float[N,32] z) {
            n = LayerNormalization(x, s)
            y = MatMul(n, w)
            z = Add(n, x)
        }""",
        s=SIZES,
        w=W,
    )
    infer_shapes(model)
    feed = {"x": rows()}
    before = outputs(model, feed)
    assert len(smooth(model, [feed])) == 1
    assert sorted(op_types(model)) == ["Add", "LayerNormalization", "MatMul", "Mul"]
    for new, old in zip(outputs(model, feed), before, strict=True):
        assert np.array_equal(new, old)


def test_a_product_that_stays_in_float_has_no_say_and_scales_along(make_model) -> None:
    model = make_model(
        """g (float[N,32] x, float[32] s, float[32,16] w, float[32,16] v)
            => (float[N,16] y, float[N,16] z) {
            n = LayerNormalization(x, s)
            y = MatMul(n, w)
            z = MatMul(n, v)
        }""",
        s=SIZES,
        w=W,
        v=V,
    )
    infer_shapes(model)
    feed = {"x": rows()}
    before = outputs(model, feed)
    assert smooth(model, [feed], layers=()) == ()
    assert [step.count for step in smooth(model, [feed], layers={"n2"})] == [1]
    for new, old in zip(outputs(model, feed), before, strict=True):
        assert np.array_equal(new, old)


def test_even_channels_are_left_alone(make_model) -> None:
    model = make_model(
        "g (float[N,32] x, float[32,16] w) => (float[N,16] y) { y = MatMul(x, w) }", w=W
    )
    infer_shapes(model)
    assert smooth(model, [{"x": rows()}]) == ()


def test_a_model_without_products_is_left_alone(make_model) -> None:
    model = make_model("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    assert smooth(model, []) == ()


@pytest.mark.parametrize("strength", [0.25, 0.5, 0.75])
def test_expected_noise_is_that_of_the_quantised_product(strength) -> None:
    x = rows() * SIZES
    ranges = ChannelRanges(x.min(axis=0), x.max(axis=0), np.square(x).mean(axis=0))
    scales = smoothing_scales(ranges, W, strength)
    measured = np.square(quantised_product(x / scales, W * scales[:, None]) - x @ W)
    noise = expected_noise(ranges, W, scales)
    assert noise == pytest.approx(measured.sum(axis=1).mean(), rel=0.4)
    assert noise < 0.5 * expected_noise(ranges, W, np.ones(CHANNELS))
