"""Fake quantisation passes gradients straight through, and gives the scale its own."""

from __future__ import annotations

import numpy as np
import torch

from trimton.transforms.distill.interpreter import OnnxModule

TEXT = """g (float[8] x, float s, int8 zero) => (float[8] y) {
    q = QuantizeLinear(x, s, zero)  y = DequantizeLinear(q, s, zero)
}"""
SCALE = 0.5
X = np.array([-100, -3.3, -0.2, 0.1, 0.4, 2.6, 60, 100], np.float32)
INSIDE = np.array([0, 1, 1, 1, 1, 1, 1, 0], bool)


def run(parse):
    module = OnnxModule(parse(TEXT))
    x = torch.from_numpy(X.copy()).requires_grad_()
    scale = torch.tensor(SCALE, requires_grad=True)
    y = module({"x": x, "s": scale, "zero": torch.tensor(3, dtype=torch.int8)})["y"]
    return x, scale, y


def test_values_are_those_of_onnx_runtime(parse, in_runtime) -> None:
    feeds = {"x": X, "s": np.float32(SCALE), "zero": np.array(3, np.int8)}
    expected = in_runtime(parse(TEXT), feeds)["y"]
    np.testing.assert_array_equal(run(parse)[2].detach().numpy(), expected)


def test_values_within_the_range_get_the_gradient_and_others_none(parse) -> None:
    x, _, y = run(parse)
    upstream = torch.arange(1.0, 9.0)
    (y * upstream).sum().backward()
    np.testing.assert_allclose(x.grad, upstream.numpy() * INSIDE, rtol=1e-6)


def test_the_scale_gets_the_gradient_of_learned_step_sizes(parse) -> None:
    """Inside round(x/s) - x/s, outside the bound that holds (Esser et al., 2020, equation 3)."""
    _, scale, y = run(parse)
    y.sum().backward()
    steps = X / SCALE
    bounds = np.where(X < 0, -128 - 3, 127 - 3)
    expected = np.where(INSIDE, np.round(steps) - steps, bounds).sum()
    np.testing.assert_allclose(scale.grad, expected, rtol=1e-5)


def test_a_rounded_weight_learns_through_the_rounding(parse) -> None:
    text = """g (float[N,3] x) => (float[N,2] z) {
        q = QuantizeLinear(w, s, zero)  d = DequantizeLinear(q, s, zero)  z = MatMul(x, d)
    }"""
    weight = np.array([[0.11, -0.27], [0.4, 2.0], [-0.06, 0.3]], np.float32)
    module = OnnxModule(parse(text, w=weight, s=np.float32(0.01), zero=np.int8(0)))
    module({"x": torch.eye(3)})["z"].sum().backward()
    ((name, learnt),) = module.weights()
    assert name == "w"
    np.testing.assert_array_equal(learnt.grad, [[1, 1], [1, 0], [1, 1]])


def test_a_quantised_model_trains_what_is_left_in_floating_point(parse) -> None:
    text = """g (float[N,3] x) => (float[N,2] z) {
        q = QuantizeLinear(x, s, zero)  d = DequantizeLinear(q, s, zero)
        wd = DequantizeLinear(w, ws, wz)  y = MatMul(d, wd)  z = Add(y, b)
    }"""
    model = parse(
        text,
        s=np.float32(0.1),
        zero=np.uint8(128),
        w=np.arange(6, dtype=np.int8).reshape(3, 2),
        ws=np.float32(0.02),
        wz=np.int8(0),
        b=np.zeros(2, np.float32),
    )
    rng = np.random.default_rng(0)
    module = OnnxModule(model, check={"x": rng.standard_normal((4, 3)).astype(np.float32)})
    assert [name for name, _ in module.weights()] == ["b"]
