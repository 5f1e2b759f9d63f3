from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.graph.edit import constant_array
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.graph.shapes import infer_shapes
from trimton.transforms.quantize.channel_scaling import power_of_two
from trimton.transforms.quantize.equalisation import equalise

RNG = np.random.default_rng(0)
IMAGE = {"x": RNG.normal(size=(2, 3, 9, 9)).astype(np.float32)}
ROWS = {"x": RNG.normal(size=(5, 6)).astype(np.float32)}


def uneven(*shape: int, axis: int = 0) -> np.ndarray:
    """Weights whose channels have very different ranges."""
    factors = np.exp2(np.linspace(-4, 4, shape[axis]))
    broadcast = factors.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return (RNG.normal(size=shape) * broadcast).astype(np.float32)


def outputs(model: ir.Model, feed: dict[str, np.ndarray]) -> np.ndarray:
    return next(iter(run(open_session(model), feed).values()))


def spread(array: np.ndarray, axis: int) -> float:
    ranges = np.abs(np.moveaxis(array, axis, 0)).reshape(array.shape[axis], -1).max(axis=1)
    return float(ranges.max() / ranges.min())


def weight(model: ir.Model, name: str) -> np.ndarray:
    array = constant_array(model.graph.initializers[name])
    assert array is not None
    return array


def test_two_convolutions_share_their_ranges_and_compute_the_same(make_model) -> None:
    model = make_model(
        """g (float[2,3,9,9] x, float[8,3,3,3] w, float[8] b, float[4,8,3,3] v)
            => (float[2,4,5,5] y) {
            h = Conv(x, w, b)
            r = Relu(h)
            y = Conv(r, v)
        }""",
        w=uneven(8, 3, 3, 3),
        b=uneven(8),
        v=RNG.normal(size=(4, 8, 3, 3)).astype(np.float32),
    )
    infer_shapes(model)
    before = outputs(model, IMAGE)
    steps = equalise(model)
    assert np.array_equal(outputs(model, IMAGE), before)
    assert len(steps) == 1
    made = np.abs(weight(model, "w")).max(axis=(1, 2, 3))
    read = np.abs(weight(model, "v")).max(axis=(0, 2, 3))
    assert (np.maximum(made / read, read / made) <= 2.0001).all()


def test_a_chain_around_a_depthwise_convolution_settles(make_model) -> None:
    model = make_model(
        """g (float[2,3,9,9] x, float[8,3,1,1] w, float[8] b, float[8,1,3,3] d, float[8] c,
              float[4,8,1,1] v) => (float[2,4,9,9] y) {
            h = Conv(x, w, b)
            r = LeakyRelu<alpha=0.1>(h)
            p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(r)
            k = Conv<group=8, pads=[1,1,1,1]>(p, d, c)
            s = Relu(k)
            y = Conv(s, v)
        }""",
        w=uneven(8, 3, 1, 1),
        b=uneven(8),
        d=uneven(8, 1, 3, 3)[::-1].copy(),
        c=uneven(8),
        v=RNG.normal(size=(4, 8, 1, 1)).astype(np.float32),
    )
    infer_shapes(model)
    before = outputs(model, IMAGE)
    assert len(equalise(model)) == 2
    assert np.array_equal(outputs(model, IMAGE), before)
    assert spread(weight(model, "w"), 0) < 16
    assert spread(weight(model, "v"), 1) < 16
    assert equalise(model) == ()


def test_a_bias_that_is_added_behind_a_matrix_product_scales_along(make_model) -> None:
    model = make_model(
        """g (float[5,6] x, float[6,8] w, float[8] b, float[4,8] v) => (float[5,4] y) {
            h = MatMul(x, w)
            a = Add(b, h)
            r = Relu(a)
            y = Gemm<transB=1>(r, v)
        }""",
        w=uneven(6, 8, axis=1),
        b=uneven(8),
        v=RNG.normal(size=(4, 8)).astype(np.float32),
    )
    infer_shapes(model)
    before = outputs(model, ROWS)
    assert len(equalise(model)) == 1
    assert np.array_equal(outputs(model, ROWS), before)


def test_a_shared_bias_is_left_to_its_other_reader(make_model) -> None:
    model = make_model(
        """g (float[5,6] x, float[6,8] w, float[8] b, float[8,8] v) => (float[5,8] y) {
            h = Gemm(x, w, b)
            r = Relu(h)
            y = Gemm(r, v, b)
        }""",
        w=uneven(6, 8, axis=1),
        b=uneven(8),
        v=RNG.normal(size=(8, 8)).astype(np.float32),
    )
    infer_shapes(model)
    before = outputs(model, ROWS)
    assert len(equalise(model)) == 1
    assert np.array_equal(outputs(model, ROWS), before)


@pytest.mark.parametrize(
    "between",
    [
        "r = Sigmoid(h)",
        "r = Clip(h, zero, six)",
        "s = Relu(h) r = Add(s, h)",
        "r = Add(h, zero)",
    ],
)
def test_layers_with_anything_else_between_are_left_alone(make_model, between) -> None:
    lines = between.replace(" r =", "\n r =")
    model = make_model(
        f"""g (float[2,3,9,9] x, float[8,3,3,3] w, float[4,8,3,3] v, float zero, float six)
            => (float[2,4,5,5] y) {{
            h = Conv(x, w)
            {lines}
            y = Conv(r, v)
        }}""",
        w=uneven(8, 3, 3, 3),
        v=RNG.normal(size=(4, 8, 3, 3)).astype(np.float32),
        zero=np.float32(0),
        six=np.float32(6),
    )
    infer_shapes(model)
    assert equalise(model) == ()


def test_powers_of_two_are_the_closest_by_ratio() -> None:
    assert power_of_two(np.array([0.7, 0.72, 3.0, 1.0])).tolist() == [0.5, 1.0, 4.0, 1.0]
    assert power_of_two(np.array([0.0, np.inf, np.nan])).tolist() == [1.0, 1.0, 1.0]
