"""The refit: fits are those of least squares, and what a cut broke is repaired."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.graph.session import open_session, run
from trimton.transforms.prune import PruneSettings, prune
from trimton.transforms.prune.plan import find, prepared
from trimton.transforms.prune.refit.features import (
    as_weight,
    feature_channels,
    is_linear,
    rows,
    weight_matrix,
)
from trimton.transforms.prune.ties import Layer

ModelMaker = Callable[..., ir.Model]

CONVOLUTIONS = {
    "plain": "",
    "padded": "<pads = [1, 1, 1, 1]>",
    "uneven padding and stride": "<pads = [0, 1, 2, 1], strides = [2, 1]>",
    "dilated": "<dilations = [2, 2]>",
    "same upper": '<auto_pad = "SAME_UPPER", strides = [2, 2]>',
    "same lower": '<auto_pad = "SAME_LOWER", strides = [2, 2]>',
    "valid": '<auto_pad = "VALID">',
}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def only_layer(model: ir.Model) -> Layer:
    (layer,) = find(prepared(model)).ties.layers
    assert is_linear(layer)
    return layer


@pytest.mark.parametrize("attributes", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_patches_times_weights_are_a_convolution(make_model: ModelMaker, attributes: str) -> None:
    model = make_model(
        "g (float[2,3,7,6] x, float[4,3,3,3] w) => (float[a,b,c,d] y)"
        f"{{ y = Conv {attributes} (x, w) }}",
        w=normal(4, 3, 3, 3),
    )
    x = normal(2, 3, 7, 6, seed=1)
    layer = only_layer(model)
    batch = rows(layer, x, 5, np.random.default_rng(0))
    expected = batch.select(run(open_session(model), {"x": x})["y"])
    assert expected.shape == (10, 4)
    np.testing.assert_allclose(batch.features @ weight_matrix(layer), expected, atol=1e-4)


MATMUL = "g (float[2,5,6] x, float[6,4] w) => (float[2,5,4] y) { y = MatMul(x, w) }"
GEMM = """g (float[8,6] x, float[4,6] w) => (float[8,4] y) {
  y = Gemm <alpha = 0.5, transB = 1> (x, w)
}"""


@pytest.mark.parametrize(
    ("graph", "weight"), [(MATMUL, (6, 4)), (GEMM, (4, 6))], ids=["MatMul", "Gemm"]
)
def test_rows_times_weights_are_a_product(
    make_model: ModelMaker, graph: str, weight: tuple[int, int]
) -> None:
    model = make_model(graph, w=normal(*weight))
    layer = only_layer(model)
    shape = [size for size in model.graph.inputs[0].shape or () if isinstance(size, int)]
    x = normal(*shape, seed=1)
    batch = rows(layer, x, 3, np.random.default_rng(0))
    expected = batch.select(run(open_session(model), {"x": x})["y"])
    np.testing.assert_allclose(batch.features @ weight_matrix(layer), expected, atol=1e-5)
    np.testing.assert_allclose(as_weight(layer, weight_matrix(layer)), normal(*weight), atol=1e-6)
    assert list(feature_channels(layer)) == list(range(6))


DUPLICATES = """g (float[N,3,8,8] x, float[16,3,3,3] a, float[4,16,3,3] b) => (float[N,4,4,4] y) {
  h = Conv(x, a)
  i = Relu(h)
  y = Conv(i, b)
}"""


def duplicated(make_model: ModelMaker) -> ir.Model:
    """Each channel of the first layer is there twice, so half of them are worth nothing."""
    a = np.repeat(normal(8, 3, 3, 3), 2, axis=0)
    return make_model(DUPLICATES, a=a, b=normal(4, 16, 3, 3, seed=1))


def outputs(model: ir.Model, x: np.ndarray) -> np.ndarray:
    made: np.ndarray = run(open_session(model), {"x": x})["y"]
    return made


def error(model: ir.Model, pruned: ir.Model) -> float:
    """The error on inputs that no fit has seen, as a share of the output's variance."""
    x = normal(32, 3, 8, 8, seed=9)
    old = outputs(model, x)
    return float(((outputs(pruned, x) - old) ** 2).mean() / old.var())


def test_choice_by_reconstruction_removes_what_others_can_replace(make_model: ModelMaker) -> None:
    model = duplicated(make_model)
    settings = PruneSettings(ratio=0.5, importance="reconstruction", multiple=1)
    pruned, report = prune(model, settings, {"x": normal(64, 3, 8, 8, seed=2)})
    kept = pruned.graph.initializers["a"].const_value
    assert kept is not None
    assert len(np.unique(kept.numpy().round(5), axis=0)) == 8
    assert error(model, pruned) < 1e-5
    (step,) = [step for step in report.steps if step.name == "refit"]
    assert step.detail["error"]["after"] < 1e-5 < step.detail["error"]["before"]


def test_choice_by_magnitude_is_repaired_as_far_as_it_can_be(make_model: ModelMaker) -> None:
    model = duplicated(make_model)
    samples = {"x": normal(64, 3, 8, 8, seed=2)}
    errors = []
    for does_refit in (False, True):
        settings = PruneSettings(ratio=0.25, multiple=1, refit=does_refit)
        errors.append(error(model, prune(model, settings, samples)[0]))
    assert errors[1] < errors[0] / 2


def test_without_samples_nothing_is_refitted(make_model: ModelMaker) -> None:
    _, report = prune(duplicated(make_model), PruneSettings(ratio=0.5, multiple=1))
    assert "refit" not in {step.name for step in report.steps}


RESIDUAL = """g (float[N,8] x, float[8,8] s, float[8,32] a, float[32,8] b, float[8,3] c)
  => (float[N,3] y) {
  u = MatMul(x, s)
  h = MatMul(x, a)
  i = Relu(h)
  j = MatMul(i, b)
  sum = Add(j, u)
  k = Relu(sum)
  y = MatMul(k, c)
}"""


def test_a_residual_branch_is_fitted_to_the_sum(make_model: ModelMaker) -> None:
    weights = {"s": (8, 8), "a": (8, 32), "b": (32, 8), "c": (8, 3)}
    model = make_model(
        RESIDUAL,
        **{name: normal(*shape, seed=n) for n, (name, shape) in enumerate(weights.items())},
    )
    settings = PruneSettings(ratio=0.25, multiple=1, importance="reconstruction")
    pruned, report = prune(model, settings, {"x": normal(400, 8, seed=7)})
    fits = {step.detail["layer"]: step.detail for step in report.steps if step.name == "refit"}
    assert {fit["target"] for fit in fits.values()} >= {"sum"}
    for fit in fits.values():
        assert fit["error"]["after"] < fit["error"]["before"]
    unrepaired, _ = prune(
        model,
        PruneSettings(ratio=0.25, multiple=1, importance="reconstruction", refit=False),
        {"x": normal(400, 8, seed=7)},
    )
    x = normal(200, 8, seed=8)
    gaps = [float(((outputs(m, x) - outputs(model, x)) ** 2).mean()) for m in (pruned, unrepaired)]
    assert gaps[0] < gaps[1] / 2


def test_a_layer_that_ends_the_graph_keeps_its_output(make_model: ModelMaker) -> None:
    """A MatMul has no bias: the constant goes into an Add behind it, the output keeps its name."""
    graph = """g (float[N,6] x, float[6,16] a, float[16,3] b) => (float[N,3] y) {
      h = MatMul(x, a)
      i = Relu(h)
      y = MatMul(i, b)
    }"""
    model = make_model(graph, a=normal(6, 16), b=normal(16, 3, seed=1))
    pruned, _ = prune(model, PruneSettings(ratio=0.5, multiple=1), {"x": normal(300, 6, seed=2)})
    assert [value.name for value in pruned.graph.outputs] == ["y"]
    assert outputs(pruned, normal(5, 6)).shape == (5, 3)


def test_constant_samples_do_not_break_the_fit(make_model: ModelMaker) -> None:
    model = duplicated(make_model)
    for value in (0.0, 1.0):
        samples = {"x": np.full((8, 3, 8, 8), value, np.float32)}
        pruned, _ = prune(
            model, PruneSettings(ratio=0.5, multiple=1, importance="reconstruction"), samples
        )
        assert np.isfinite(outputs(pruned, normal(2, 3, 8, 8))).all()
