"""The joint refit: adjoint maps, activations seen through, and a gain on samples not seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trimton.transforms.graph.session import open_session, run
from trimton.transforms.prune import PruneSettings, prune
from trimton.transforms.prune.plan import find, prepared
from trimton.transforms.prune.refit.between import Between, producer_of
from trimton.transforms.prune.refit.features import weight_matrix
from trimton.transforms.prune.refit.linear_map import LinearMap, has_map
from trimton.transforms.prune.refit.saturation import Limits, limits_of
from trimton.transforms.prune.ties import Layer

ModelMaker = Callable[..., ir.Model]

CONVOLUTIONS = {
    "plain": "",
    "padded": "<pads = [1, 1, 1, 1]>",
    "uneven padding and stride": "<pads = [0, 1, 2, 1], strides = [2, 1]>",
    "dilated": "<dilations = [2, 2]>",
    "same upper": '<auto_pad = "SAME_UPPER", strides = [2, 2]>',
}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def layers(model: ir.Model) -> list[Layer]:
    return list(find(prepared(model)).ties.layers)


@pytest.mark.parametrize("attributes", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_the_map_of_a_convolution_computes_it_and_has_its_adjoint(
    make_model: ModelMaker, attributes: str
) -> None:
    model = make_model(
        "g (float[2,3,7,6] x, float[4,3,3,3] w) => (float[a,b,c,d] y)"
        f"{{ y = Conv {attributes} (x, w) }}",
        w=normal(4, 3, 3, 3),
    )
    x = normal(2, 3, 7, 6, seed=1)
    (layer,) = layers(model)
    linear = LinearMap(layer, (3, 7, 6))
    rows = linear.rows(x)
    expected = run(open_session(model), {"x": x})["y"]
    made = linear.values(rows @ linear.arranged(weight_matrix(layer)))
    np.testing.assert_allclose(made, expected, atol=1e-4)
    np.testing.assert_array_equal(linear.values(linear.value_rows(expected)), expected)
    assert linear.by_channel(linear.arranged(weight_matrix(layer))).shape == (3, 9 * 4)
    restored = linear.restored(linear.arranged(weight_matrix(layer)))
    np.testing.assert_array_equal(restored, weight_matrix(layer))
    other = normal(*rows.shape, seed=2)
    assert np.vdot(rows, other) == pytest.approx(np.vdot(x, linear.adjoint(other)), rel=1e-3)


def test_the_map_of_a_product_contracts_the_last_axis(make_model: ModelMaker) -> None:
    graph = "g (float[2,5,6] x, float[6,4] w) => (float[2,5,4] y) { y = MatMul(x, w) }"
    (layer,) = layers(make_model(graph, w=normal(6, 4)))
    x = normal(2, 5, 6, seed=1)
    linear = LinearMap(layer, (5, 6))
    made = linear.values(linear.rows(x) @ linear.arranged(weight_matrix(layer)))
    np.testing.assert_allclose(made, x @ normal(6, 4), atol=1e-5)
    np.testing.assert_array_equal(linear.adjoint(linear.rows(x)), x)


def two_layers(make_model: ModelMaker, between: str) -> tuple[ir.Model, list[Layer]]:
    model = make_model(
        "g (float[2,3,5,5] x, float[4,3,1,1] v, float[2,4,1,1] w) => (float[a,b,c,d] y) {"
        f"h = Conv(x, v) {between} y = Conv(r, w) }}",
        v=normal(4, 3, 1, 1),
        w=normal(2, 4, 1, 1),
    )
    work = prepared(model)
    return work, list(find(work).ties.layers)


@pytest.mark.parametrize(
    ("between", "function"),
    {
        "relu": ("r = Relu(h)", lambda h: np.maximum(h, 0)),
        "a chain": ("i = Tanh(h) r = LeakyRelu <alpha = 0.5> (i)", None),
        "swish": ("s = Sigmoid(h) r = Mul(h, s)", lambda h: h / (1 + np.exp(-h))),
        "swish, the other way round": ("s = Sigmoid(h) r = Mul(s, h)", None),
    }.values(),
)
def test_an_elementwise_function_between_two_layers_is_found_with_its_slope(
    make_model: ModelMaker, between: str, function: Callable[[np.ndarray], np.ndarray] | None
) -> None:
    model, (first, second) = two_layers(make_model, between)
    assert producer_of(second, {id(first.node.outputs[0]): first}) is first
    middle = Between(model, first, second)
    h = normal(2, 4, 5, 5, seed=3)
    if function is not None:
        np.testing.assert_allclose(middle(h), function(h), atol=1e-5)
    smooth = np.abs(h) > 0.05
    step = np.float32(1e-2)
    expected = (middle(h + step) - middle(h - step)) / (2 * step)
    np.testing.assert_allclose(middle.slope(h)[smooth], expected[smooth], atol=2e-2)


@pytest.mark.parametrize(
    "between",
    [
        "r = Softmax <axis = 1> (h)",
        "r = MaxPool <kernel_shape = [2, 2]> (h)",
        "k = Conv(x, v) i = Relu(h) r = Add(i, k)",
    ],
    ids=["across channels", "across places", "with another value"],
)
def test_what_is_not_elementwise_is_no_pair(make_model: ModelMaker, between: str) -> None:
    _, found = two_layers(make_model, between)
    first, second = found[0], found[-1]
    assert producer_of(second, {id(first.node.outputs[0]): first}) is None


def test_a_layer_that_others_read_too_is_no_pair(make_model: ModelMaker) -> None:
    model = make_model(
        "g (float[2,3,5,5] x, float[4,3,1,1] v, float[2,4,1,1] w)"
        " => (float[a,b,c,d] y, float[e,f,g,h] z) {"
        "m = Conv(x, v) r = Relu(m) y = Conv(r, w) z = Neg(r) }",
        v=normal(4, 3, 1, 1),
        w=normal(2, 4, 1, 1),
    )
    first, second = layers(model)
    assert has_map(second)
    assert producer_of(second, {id(first.node.outputs[0]): first}) is None


FLOATS = arrays(np.float32, 16, elements=st.floats(-4, 8, width=32))


@settings(max_examples=50, deadline=None)
@given(FLOATS, FLOATS)
def test_the_goal_means_the_same_to_the_activation_and_is_the_nearest(
    wanted: np.ndarray, made: np.ndarray
) -> None:
    goal = Limits(0, 6).goal(wanted, made)
    np.testing.assert_array_equal(np.clip(goal, 0, 6), np.clip(wanted, 0, 6))
    assert np.all(np.abs(goal - made) <= np.abs(wanted - made))
    harmless = np.clip(made, 0, 6) == np.clip(wanted, 0, 6)
    np.testing.assert_array_equal(goal[harmless], made[harmless])


def test_limits_are_those_of_the_only_reader(make_model: ModelMaker) -> None:
    model = make_model("g (float[N] x) => (float[N] y) { h = Neg(x) i = Relu(h) y = Neg(i) }")
    values = {value.name: value for node in model.graph for value in node.outputs}
    assert limits_of(values["h"]) == Limits(low=0.0)
    assert limits_of(values["i"]) == Limits()


PERCEPTRON = """g (float[N,6] x, float[24,6] a, float[24] b, float[5,24] c, float[5] d)
  => (float[N,5] y) {
  h = Gemm <transB = 1, alpha = 0.5> (x, a, b)
  i = Tanh(h)
  y = Gemm <transB = 1, alpha = 0.5> (i, c, d)
}"""


def test_matrix_products_with_factors_are_refitted_together(make_model: ModelMaker) -> None:
    weights = {"a": normal(24, 6), "b": normal(24, seed=5) + 1, "d": normal(5, seed=6)}
    model = make_model(PERCEPTRON, c=normal(5, 24, seed=1), **weights)
    samples, unseen = normal(4000, 6, seed=2), normal(500, 6, seed=9)
    wanted = run(open_session(model), {"x": unseen})["y"]
    choice = PruneSettings(ratio=0.25, importance="reconstruction", multiple=1)
    pruned, report = prune(model, choice, {"x": samples})
    made = run(open_session(pruned), {"x": unseen})["y"]
    error = float(((made - wanted) ** 2).sum() / ((wanted - wanted.mean(0)) ** 2).sum())
    told = [step.detail for step in report.steps if " and " in step.detail.get("layer", "")]
    assert len(told) == 1
    assert error == pytest.approx(told[0]["error"]["after"], rel=0.2)
    assert error < 0.02


NETWORK = """g (float[N,4,8,8] x, float[24,4,3,3] a, float[24] b, float[6,24,3,3] c)
  => (float[N,6,8,8] y) {
  h = Conv <pads = [1,1,1,1]> (x, a, b)
  i = Relu(h)
  s = Conv <pads = [1,1,1,1]> (i, c)
  y = Relu(s)
}"""


def test_features_that_learn_beat_features_that_were_chosen(
    make_model: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(
        NETWORK, a=normal(24, 4, 3, 3), b=normal(24, seed=5), c=normal(6, 24, 3, 3, seed=1) / 10
    )
    samples, unseen = normal(160, 4, 8, 8, seed=2), normal(64, 4, 8, 8, seed=9)
    wanted = run(open_session(model), {"x": unseen})["y"]
    choice = PruneSettings(ratio=0.5, importance="reconstruction", multiple=1)
    errors = {}
    for name in ("together", "alone"):
        pruned, report = prune(model, choice, {"x": samples})
        made = run(open_session(pruned), {"x": unseen})["y"]
        errors[name] = float(((made - wanted) ** 2).mean() / wanted.var())
        together = [s for s in report.steps if " and " in s.detail.get("layer", "")]
        assert bool(together) == (name == "together")
        monkeypatch.setattr("trimton.transforms.prune.refit.refitting.refit_pair", lambda *_: None)
    assert errors["together"] < 0.8 * errors["alone"]


BLOCKS = """g (float[N,3,6,6] x, float[8,3,1,1] s, float[16,8,3,3] a, float[8,16,3,3] b,
    float[16,8,3,3] c, float[8,16,3,3] d) => (float[N,8,6,6] y) {
  t0 = Conv(x, s)
  h0 = Relu(t0)
  a1 = Conv <pads = [1,1,1,1]> (h0, a)
  r1 = Relu(a1)
  b1 = Conv <pads = [1,1,1,1]> (r1, b)
  t1 = Add(b1, h0)
  h1 = Relu(t1)
  a2 = Conv <pads = [1,1,1,1]> (h1, c)
  r2 = Relu(a2)
  b2 = Conv <pads = [1,1,1,1]> (r2, d)
  t2 = Add(b2, h1)
  y = Relu(t2)
}"""


def test_a_layer_whose_inputs_stay_learns_only_with_the_one_behind_it(
    make_model: ModelMaker,
) -> None:
    kernels = {"a": (16, 8, 3, 3), "b": (8, 16, 3, 3), "c": (16, 8, 3, 3), "d": (8, 16, 3, 3)}
    weights = {name: normal(*shape, seed=ord(name)) / 8 for name, shape in kernels.items()}
    model = make_model(BLOCKS, s=normal(8, 3, 1, 1), **weights)
    settings = PruneSettings(ratio=0.5, multiple=1)
    _, report = prune(model, settings, {"x": normal(96, 3, 6, 6)})
    makers = {node.outputs[0].name: node.name for node in prepared(model).graph}
    a1, b1, a2, b2 = (makers[name] for name in ("a1", "b1", "a2", "b2"))
    layers = [step.detail["layer"] for step in report.steps if step.name == "refit"]
    assert layers == [b1, f"{a1} and {b1}", b2, f"{a2} and {b2}"]
