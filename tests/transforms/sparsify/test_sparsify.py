"""Sparse models: the pattern holds in every layer, compensation helps, and the report is true."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.graph.digest import model_digest
from trimton.transforms.graph.inputs import interface
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.sparsify import SparsifySettings, sparsify
from trimton.transforms.sparsify.settings import METHODS

ModelMaker = Callable[..., ir.Model]

NETWORK = """g (float[N,8,8,8] x, float[16,8,3,3] a, float[16,8,3,3] b, float[16,1,3,3] d,
  float[32,16] c, float[32,4] e) => (float[N,4] y) {
  h = Conv<pads=[1,1,1,1]>(x, a)
  i = Relu(h)
  j = Conv<group=2>(i, b)
  k = Relu(j)
  l = Conv<group=16>(k, d)
  m = GlobalAveragePool(l)
  n = Flatten(m)
  o = Gemm<transB=1, alpha=0.5>(n, c)
  p = Relu(o)
  y = MatMul(p, e)
}"""
WEIGHTS = {"a": (16, 8, 3, 3), "b": (16, 8, 3, 3), "d": (16, 1, 3, 3), "c": (32, 16), "e": (32, 4)}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def images(count: int, seed: int) -> np.ndarray:
    """Channels that resemble each other, as those of real networks do."""
    mixing = normal(8, 8, seed=5) + 2
    return np.einsum("nchw,cd->ndhw", normal(count, 8, 8, 8, seed=seed), mixing)


SAMPLES = {"x": images(96, 9)}


@pytest.fixture
def model(make_model: ModelMaker) -> ir.Model:
    return make_model(
        NETWORK, **{name: normal(*shape, seed=n) for n, (name, shape) in enumerate(WEIGHTS.items())}
    )


def weight(model: ir.Model, name: str) -> np.ndarray:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def error(model: ir.Model, other: ir.Model) -> float:
    """On inputs that no method has seen, as a share of the output's variance."""
    x = images(64, 77)
    old, new = (run(open_session(m), {"x": x})["y"] for m in (model, other))
    return float(np.square(new - old).mean() / old.var())


@pytest.mark.parametrize("method", METHODS)
def test_two_of_four_input_channels_stay_in_every_layer(model: ir.Model, method: str) -> None:
    before = model_digest(model)
    made, report = sparsify(model, SparsifySettings(pattern="2:4", method=method), SAMPLES)
    assert model_digest(model) == before
    assert interface(made) == interface(model)
    for name, axis in {"a": 1, "b": 1, "c": 1, "e": 0}.items():
        channels = np.moveaxis(weight(made, name), axis, -1)
        neighbours = (channels != 0).reshape(*channels.shape[:-1], -1, 4).sum(axis=-1)
        assert (neighbours == 2).all(), name
    np.testing.assert_array_equal(weight(made, "d"), weight(model, "d"))
    whys = {one.what: one.why for one in report.skipped}
    assert whys["n4"] == "its input channels of a group (1) are no multiple of 4"
    zeros = [step.detail["zeros"] for step in report.steps if step.name == "sparsify"]
    assert zeros == [0.5] * 4


@pytest.mark.parametrize("method", METHODS)
def test_the_ratio_asked_for_goes_in_every_layer(model: ir.Model, method: str) -> None:
    made, _ = sparsify(model, SparsifySettings(ratio=0.25, method=method), SAMPLES)
    for name in WEIGHTS:
        share = 2 / 9 if name == "d" and method != "magnitude" else 0.25  # of each kernel of nine
        assert (weight(made, name) == 0).mean() == pytest.approx(share, abs=0.02), name


@pytest.mark.parametrize("goal", [{"pattern": "2:4"}, {"ratio": 0.5}], ids=["2:4", "half"])
def test_compensation_beats_masks(model: ir.Model, goal: dict[str, object]) -> None:
    errors = {
        method: error(model, sparsify(model, SparsifySettings(method=method, **goal), SAMPLES)[0])
        for method in METHODS
    }
    assert errors["compensated"] < 0.7 * min(errors["magnitude"], errors["wanda"])


def test_wanda_asks_what_a_weight_multiplies(make_model: ModelMaker) -> None:
    """The larger weight of each pair reads a channel that is nearly silent."""
    model = make_model(
        "g (float[N,4] x, float[4,2] w) => (float[N,2] y) { y = MatMul(x, w) }",
        w=np.array([[2, 2], [1, 1], [2, 2], [1, 1]], np.float32),
    )
    samples = {"x": normal(32, 4) * np.array([0.01, 1, 0.01, 1], np.float32)}
    masks = {
        method: weight(
            sparsify(model, SparsifySettings(ratio=0.5, method=method), samples)[0], "w"
        )[:, 0]
        != 0
        for method in ("magnitude", "wanda")
    }
    assert masks["magnitude"].tolist() == [True, False, True, False]
    assert masks["wanda"].tolist() == [False, True, False, True]


def test_the_report_says_what_zeros_are_worth(model: ir.Model) -> None:
    made, report = sparsify(model, SparsifySettings(pattern="2:4", method="magnitude"))
    packed, deflated = (step.detail for step in report.steps if step.name == "storage")
    count = sum(int(np.prod(WEIGHTS[name])) for name in "abce")
    assert packed["bytes"] == {"before": 4 * count, "after": count // 2 * 4 + count // 2 * 2 // 8}
    weights = b"".join(
        value.const_value.tobytes()
        for value in made.graph.initializers.values()
        if value.const_value is not None
    )
    assert deflated["bytes"]["after"] == len(zlib.compress(weights, 6))
    assert deflated["bytes"]["after"] < 0.7 * deflated["bytes"]["before"]
    (speed,) = (one.why for one in report.skipped if one.what == "speed")
    assert "gets no faster" in speed


def test_excluded_layers_stay_dense(model: ir.Model) -> None:
    settings = SparsifySettings(ratio=0.5, method="magnitude", exclude=("n0", "n7"))
    made, report = sparsify(model, settings)
    np.testing.assert_array_equal(weight(made, "a"), weight(model, "a"))
    np.testing.assert_array_equal(weight(made, "c"), weight(model, "c"))
    whys = [one.why for one in report.skipped if one.what in ("n0", "n7")]
    assert whys == ["excluded by name"] * 2


def test_the_same_data_give_the_same_model(model: ir.Model) -> None:
    settings = SparsifySettings(pattern="2:4")
    assert len({model_digest(sparsify(model, settings, SAMPLES)[0]) for _ in range(2)}) == 1


def test_wrong_use_is_refused(model: ir.Model, make_model: ModelMaker) -> None:
    with pytest.raises(InputError, match="method 'compensated': needs samples; give --data"):
        sparsify(model, SparsifySettings(ratio=0.5))
    with pytest.raises(InputError, match="exclusion 'nowhere': excludes no layer"):
        sparsify(model, SparsifySettings(ratio=0.5, exclude=("nowhere",)), SAMPLES)
    odd = make_model(
        "g (float[N,3] x, float[3,2] w) => (float[N,2] y) { y = MatMul(x, w) }", w=normal(3, 2)
    )
    with pytest.raises(UnsupportedModelError, match=r"n0: its input channels \(3\)"):
        sparsify(odd, SparsifySettings(pattern="2:4", method="magnitude"))


WRONG = {
    "nothing": ({}, "give one of pattern and ratio"),
    "both": ({"pattern": "2:4", "ratio": 0.5}, "give one of pattern and ratio"),
    "ratio": ({"ratio": 1.0}, "ratio 1: must lie between 0 and 1"),
    "pattern": ({"pattern": "4:2"}, "pattern '4:2': must be N:M"),
    "method": ({"ratio": 0.5, "method": "best"}, "choose magnitude, wanda, compensated"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_settings_are_refused(wrong: str) -> None:
    options, message = WRONG[wrong]
    with pytest.raises(InputError, match=message):
        SparsifySettings(**options)
