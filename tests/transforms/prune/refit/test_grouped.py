"""Grouped, depthwise and transposed convolutions are refitted like others, group by group."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimton.transforms.graph.session import open_session, run
from trimton.transforms.graph.shapes import infer_shapes
from trimton.transforms.prune import PruneSettings, prune
from trimton.transforms.prune.refit.group_moments import GroupMoments
from trimton.transforms.prune.refit.grouped import Batch, fit_groups, is_grouped
from trimton.transforms.prune.refit.transposed import output_sizes, transposed_patches
from trimton.transforms.prune.relations import collect_ties
from trimton.transforms.prune.ties import Layer

ModelMaker = Callable[..., ir.Model]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# Name -> node, shapes of input and weight.
LAYERS = {
    "depthwise": ("Conv <group = 6, pads = [1,1,1,1]>", (6, 7, 8), (6, 1, 3, 3)),
    "depthwise with a multiplier": ("Conv <group = 6, strides = [2,1]>", (6, 7, 8), (12, 1, 3, 2)),
    "grouped": ("Conv <group = 2, dilations = [2,1]>", (6, 7, 8), (4, 3, 3, 3)),
    "grouped in one dimension": ("Conv <group = 3>", (6, 9), (9, 2, 3)),
    "transposed": ("ConvTranspose <strides = [2,2]>", (6, 4, 5), (6, 5, 3, 3)),
    "transposed with pads": (
        "ConvTranspose <strides = [2,3], pads = [1,0,0,1], output_padding = [1,2]>",
        (6, 4, 5),
        (6, 5, 3, 4),
    ),
    "transposed with dilations": ("ConvTranspose <dilations = [2,1]>", (6, 4, 5), (6, 5, 2, 3)),
    "transposed in groups": ("ConvTranspose <group = 2>", (6, 4, 5), (6, 4, 2, 2)),
}


def only_layer(make_model: ModelMaker, name: str) -> tuple[ir.Model, Layer]:
    node, data, weight = LAYERS[name]
    x, w = (",".join(map(str, shape)) for shape in (data, weight))
    free = ",".join(["N", "C", *"HW"][: len(data) + 1])
    head = f"g (float[N,{x}] x, float[{w}] w) => (float[{free}] y)"
    model = make_model(f"{head} {{ r = Relu(x) y = {node} (r, w) }}", w=normal(*weight, seed=1))
    infer_shapes(model)
    (layer,) = collect_ties(model).layers
    return model, layer


@pytest.mark.parametrize("name", LAYERS)
def test_the_weights_are_found_that_made_what_is_wanted(make_model: ModelMaker, name: str) -> None:
    model, layer = only_layer(make_model, name)
    assert is_grouped(layer)
    original = layer.weight.const_value
    assert original is not None
    true = original.numpy()
    session = open_session(model)
    layer.weight.const_value = ir.tensor(true + 0.5 * normal(*true.shape, seed=2), name="w")
    changed = open_session(model)

    def batches() -> Iterator[Batch]:
        for number in range(5):
            x = normal(16, *LAYERS[name][1], seed=10 + number)
            wanted = run(session, {"x": x})["y"] + 3.0
            yield Batch(np.maximum(x, 0), wanted, run(changed, {"x": x})["y"], number == 4)

    found = fit_groups(layer, batches(), 80)
    assert found is not None
    np.testing.assert_allclose(found.weights, true, atol=2e-2)
    np.testing.assert_allclose(found.constant, 3.0, atol=5e-2)
    assert found.after < 1e-4 < found.before


def test_a_layer_that_has_no_error_stays_as_it_is(make_model: ModelMaker) -> None:
    model, layer = only_layer(make_model, "depthwise")
    x = normal(16, 6, 7, 8)
    made = run(open_session(model), {"x": x})["y"]
    batches = (Batch(np.maximum(x, 0), made, made, number == 1) for number in range(2))
    assert fit_groups(layer, batches, 32) is None


@pytest.mark.parametrize("name", [name for name in LAYERS if name.startswith("transposed")])
def test_patches_times_weights_are_the_output(make_model: ModelMaker, name: str) -> None:
    model, layer = only_layer(make_model, name)
    x = np.abs(normal(3, *LAYERS[name][1], seed=4))
    expected = run(open_session(model), {"x": x})["y"]
    sizes = output_sizes(layer, x.shape[2:])
    assert sizes == expected.shape[2:]
    patches = transposed_patches(layer, x, np.arange(np.prod(sizes)))
    weight = layer.weight.const_value
    assert weight is not None
    array = weight.numpy()
    groups = expected.shape[1] // array.shape[1]
    parts = patches.reshape(*patches.shape[:2], groups, array.shape[0] // groups, -1)
    kernels = array.reshape(groups, array.shape[0] // groups, array.shape[1], -1)
    made = np.einsum("npgck,gcok->ngop", parts, kernels)
    np.testing.assert_allclose(made.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


SEPARABLE = """g (float[N,3,8,8] x, float[16,3,3,3] a, float[12,16,3,3] b, float[12,1,3,3] d,
  float[12,4,2,2] u, float[4] v) => (float[N,4,8,8] y) {
  h = Conv <pads = [1,1,1,1]> (x, a)
  i = Relu(h)
  j = Conv <pads = [1,1,1,1]> (i, b)
  k = Relu(j)
  m = Conv <pads = [1,1,1,1], group = 12> (k, d)
  n = MaxPool <kernel_shape = [2,2], strides = [2,2]> (m)
  y = ConvTranspose <strides = [2,2]> (n, u, v)
}"""


def test_all_kinds_behind_a_cut_are_refitted(make_model: ModelMaker) -> None:
    shapes = {"a": (16, 3, 3, 3), "b": (12, 16, 3, 3), "d": (12, 1, 3, 3), "u": (12, 4, 2, 2)}
    weights = {name: normal(*shape, seed=n) for n, (name, shape) in enumerate(shapes.items())}
    model = make_model(SEPARABLE, **weights, v=normal(4))
    samples = {"x": normal(160, 3, 8, 8, seed=7)}
    choice = PruneSettings(ratio=0.25, multiple=1, fold_constants=False)
    pruned, report = prune(model, choice, samples)
    fits = {step.detail["target"]: step.detail for step in report.steps if step.name == "refit"}
    assert {"m", "y"} <= set(fits)
    assert all(fit["error"]["after"] < fit["error"]["before"] for fit in fits.values())
    plain = PruneSettings(ratio=0.25, multiple=1, fold_constants=False, refit=False)
    fresh = {"x": normal(64, 3, 8, 8, seed=8)}
    expected = run(open_session(model), fresh)["y"]
    errors = [
        float(((run(open_session(each), fresh)["y"] - expected) ** 2).mean())
        for each in (pruned, prune(model, plain, samples)[0])
    ]
    assert errors[0] < 0.7 * errors[1]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_moments_of_parts_are_those_of_the_whole(
    seed: int, groups: int, features: int, outputs: int
) -> None:
    rng = np.random.default_rng(seed)
    x, r = rng.standard_normal((groups, 20, features)), rng.standard_normal((groups, 20, outputs))
    whole = GroupMoments.of(x, r)
    parts = GroupMoments.of(x[:, :7], r[:, :7]) + GroupMoments.of(x[:, 7:], r[:, 7:])
    ridge = np.full(groups, 1e-3)
    for one, other in zip(whole.solve(ridge), parts.solve(ridge), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)
    change, constant = whole.solve(ridge)
    residual = x @ change + constant[:, None] - r
    expected = (residual**2).sum(axis=2).mean(axis=1)
    np.testing.assert_allclose(whole.errors(change, constant), expected, atol=1e-9)
