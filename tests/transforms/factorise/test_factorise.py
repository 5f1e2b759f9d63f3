"""Factorising whole models: the rewrite is exact, the fit repairs, and the report tells all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.factorise import FactoriseSettings, factorise
from trimton.transforms.factorise.candidates import find_candidates
from trimton.transforms.factorise.costs import LayerTime, factorised, measure
from trimton.transforms.factorise.spectrum import Factors
from trimton.transforms.factorise.split import split
from trimton.transforms.graph.digest import model_digest
from trimton.transforms.graph.edit import Editor
from trimton.transforms.graph.inputs import interface
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.linear import find_linear_layers
from trimton.transforms.linear.layers import prepared

ModelMaker = Callable[..., ir.Model]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


CONV = """g (float[2,4,9,8] x, float[6,4,3,3] w, float[6] b) => (float[n,c,h,v] y) {{
  y = Conv<{a}>(x, w, b)
}}"""
SPLITS = {
    "conv": (CONV.format(a="group=1"), (2, 4, 9, 8)),
    "conv strided": (CONV.format(a="pads=[0,1,2,1], strides=[2,1]"), (2, 4, 9, 8)),
    "conv dilated": (CONV.format(a="dilations=[2,2], kernel_shape=[3,3]"), (2, 4, 9, 8)),
    "conv auto_pad": (CONV.format(a='auto_pad="SAME_UPPER", strides=[2,2]'), (2, 4, 9, 8)),
    "conv 1-d": (
        """g (float[2,4,9] x, float[6,4,3] w, float[6] b) => (float[n,c,h] y) {
          y = Conv<pads=[1,1]>(x, w, b)
        }""",
        (2, 4, 9),
    ),
    "gemm": (
        """g (float[7,5] x, float[6,5] w, float[6] b) => (float[7,6] y) {
          y = Gemm<transB=1, alpha=0.5, beta=2.0>(x, w, b)
        }""",
        (7, 5),
    ),
    "matmul": (
        """g (float[2,7,5] x, float[5,6] w, float[6] b) => (float[2,7,6] y) {
          h = MatMul(x, w)
          y = Add(h, b)
        }""",
        (2, 7, 5),
    ),
}
SHAPES = {"conv 1-d": (6, 4, 3), "gemm": (6, 5), "matmul": (5, 6)}


@pytest.mark.parametrize("name", SPLITS)
def test_two_layers_compute_what_their_product_does(make_model: ModelMaker, name: str) -> None:
    graph, data = SPLITS[name]
    weight = normal(*SHAPES.get(name, (6, 4, 3, 3)))
    model = prepared(make_model(graph, w=weight, b=normal(6, seed=1)), "test")
    made = model.clone()
    (layer,) = find_linear_layers(made).layers
    outputs = layer.shape[2]
    rng = np.random.default_rng(3)
    basis, _ = np.linalg.qr(rng.standard_normal((outputs, outputs)))
    shift = rng.standard_normal(outputs)
    split(layer, Factors(layer.matrices()[0] @ basis, basis.T, shift), Editor(made))
    x = normal(*data, seed=2)
    before, after = (run(open_session(m), {"x": x})["y"] for m in (model, made))
    axes = (-1,) + (1,) * len(layer.kernel)
    np.testing.assert_allclose(after, before + shift.reshape(axes), atol=1e-4)
    assert interface(made) == interface(model)


NETWORK = """g (float[N,8,8,8] x, float[32,8,3,3] a, float[32,32,3,3] b, float[32,1,3,3] d,
  float[4,32] c) => (float[N,4] y) {
  h = Conv<pads=[1,1,1,1]>(x, a)
  i = Relu(h)
  j = Conv<pads=[1,1,1,1]>(i, b)
  k = Relu(j)
  l = Conv<group=32>(k, d)
  m = GlobalAveragePool(l)
  n = Flatten(m)
  y = Gemm<transB=1>(n, c)
}"""
SAMPLES = {"x": normal(96, 8, 8, 8, seed=9)}


def network(make_model: ModelMaker, rank: int = 32) -> ir.Model:
    """Two convolutions, the second of at most this rank, a depthwise one and a classifier."""
    b = normal(32, rank, seed=1) @ normal(rank, 32 * 9, seed=2) / np.sqrt(rank * 32 * 9)
    return make_model(
        NETWORK,
        a=normal(32, 8, 3, 3) / 8,
        b=b.reshape(32, 32, 3, 3).astype(np.float32),
        d=normal(32, 1, 3, 3, seed=3),
        c=normal(4, 32, seed=4),
    )


def error(model: ir.Model, other: ir.Model) -> float:
    """On inputs that no fit has seen, as a share of the output's variance."""
    x = normal(64, 8, 8, 8, seed=77)
    old, new = (run(open_session(m), {"x": x})["y"] for m in (model, other))
    return float(np.square(new - old).mean() / old.var())


def test_a_layer_of_low_rank_is_factorised_without_loss(make_model: ModelMaker) -> None:
    model = network(make_model, rank=8)
    before = model_digest(model)
    made, report = factorise(
        model, SAMPLES, FactoriseSettings(energy=0.999, measure=False, exclude=("n0",))
    )
    assert model_digest(model) == before
    assert interface(made) == interface(model)
    assert error(model, made) < 1e-6
    (done,) = (step for step in report.steps if step.name == "factorise")
    assert done.detail["layer"] == "n2"
    assert done.detail["rank"] == {"before": 32, "after": 8}
    assert done.detail["macs"] == {"before": 64 * 32 * 288, "after": 64 * 8 * (288 + 32)}
    assert report.before.macs is not None
    assert report.after.macs is not None
    assert report.before.macs - report.after.macs == 64 * (32 * 288 - 8 * 320)


def test_fitting_what_comes_behind_beats_factors_by_themselves(make_model: ModelMaker) -> None:
    model = network(make_model)
    made, report = factorise(model, SAMPLES, FactoriseSettings(ratio=0.5, measure=False))
    work = prepared(model, "test")
    candidates, _ = find_candidates(work, SAMPLES, 8, ())
    ranks = {
        candidate.layer.output: step.detail["rank"]["after"]
        for candidate in candidates
        for step in report.steps
        if step.detail.get("layer") == candidate.layer.name
    }
    assert len(ranks) == 2
    assert error(model, made) < 0.9 * error(model, factorised(work, candidates, ranks))


def test_what_is_left_alone_has_its_reason(make_model: ModelMaker) -> None:
    _, report = factorise(
        network(make_model), SAMPLES, FactoriseSettings(energy=0.95, measure=False, exclude=("n0",))
    )
    whys = {one.what: one.why for one in report.skipped}
    assert whys["n0"] == "excluded by name"
    assert whys["n4"].startswith("a grouped convolution is left alone")
    assert whys["n7"] == "no rank that is a multiple of 8 saves multiply-accumulates"


def test_a_target_of_macs_is_reached(make_model: ModelMaker) -> None:
    model = network(make_model)
    _, report = factorise(model, SAMPLES, FactoriseSettings(target_macs=0.6, measure=False))
    assert report.before.macs is not None
    assert report.after.macs is not None
    assert 0.4 < report.after.macs / report.before.macs <= 0.6
    (goal,) = (step for step in report.steps if step.name == "goal")
    assert goal.detail["reached"] == pytest.approx(report.after.macs / report.before.macs)


def test_without_measuring_the_result_is_always_the_same(make_model: ModelMaker) -> None:
    settings = FactoriseSettings(target_macs=0.7, measure=False)
    digests = {model_digest(factorise(network(make_model), SAMPLES, settings)[0]) for _ in range(2)}
    assert len(digests) == 1


def test_times_of_both_layers_are_found_in_the_profile(make_model: ModelMaker) -> None:
    work = prepared(network(make_model), "test")
    candidates, _ = find_candidates(work, SAMPLES, 8, ())
    ways = [{candidate.layer.output: rank for candidate in candidates} for rank in (8, 16)]
    for found in measure(work, candidates, ways, {"x": SAMPLES["x"][:1]}):
        assert set(found) == set(ways[0])
        for time in found.values():
            assert time.whole_us is not None
            assert time.factorised_us is not None


def test_time_is_saved_only_where_it_is_known() -> None:
    assert LayerTime(10.0, 8.0).is_saved
    assert not LayerTime(10.0, 10.0).is_saved
    assert not LayerTime(None, 8.0).is_saved
    assert not LayerTime(10.0, None).is_saved


def test_a_speed_out_of_reach_is_one_sentence(make_model: ModelMaker) -> None:
    with pytest.raises(InputError, match=r"^target speedup 500: is out of reach; the fastest"):
        factorise(network(make_model), SAMPLES, FactoriseSettings(target_speedup=500))


def test_a_constant_that_came_between_two_layers_is_read(make_model: ModelMaker) -> None:
    """The first product has no bias; what its lost components gave comes in an Add behind it."""
    graph = """g (float[N,32] x, float[32,32] a, float[32,32] b) => (float[N,32] y) {
      h = MatMul(x, a)
      y = MatMul(h, b)
    }"""
    model = make_model(graph, a=normal(32, 32), b=normal(32, 32, seed=1))
    x = normal(128, 32, seed=2) + 3
    made, report = factorise(model, {"x": x}, FactoriseSettings(ratio=0.5, measure=False))
    assert [node.op_type for node in made.graph] == ["MatMul", "MatMul", "Add"] * 2
    before, after = (run(open_session(m), {"x": x})["y"] for m in (model, made))
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=0.2)
    told = [step.detail["error"]["after"] for step in report.steps if step.name == "factorise"]
    real = np.square(after - before).sum() / np.square(before - before.mean(axis=0)).sum()
    assert real == pytest.approx(told[-1], rel=0.3)


def test_half_precision_stays_half(make_model: ModelMaker) -> None:
    graph = "g (float16[N,32] x, float16[32,32] w) => (float16[N,32] y) { y = MatMul(x, w) }"
    weight = (normal(32, 8) @ normal(8, 32, seed=1)).astype(np.float16)
    x = normal(64, 32, seed=2).astype(np.float16)
    model = make_model(graph, w=weight)
    made, _ = factorise(model, {"x": x}, FactoriseSettings(ratio=0.4, measure=False))
    before, after = (run(open_session(m), {"x": x})["y"] for m in (model, made))
    assert after.dtype == np.float16
    np.testing.assert_allclose(after, before, atol=0.02 * np.abs(before).max())


def test_nothing_to_factorise_says_why(make_model: ModelMaker) -> None:
    model = make_model(
        "g (float[N,4] x, float[4,4] w) => (float[N,4] y) { y = MatMul(x, w) }", w=normal(4, 4)
    )
    with pytest.raises(UnsupportedModelError, match="n0: no rank that is a multiple of 8"):
        factorise(model, {"x": normal(8, 4)}, FactoriseSettings(ratio=0.5))


WRONG = {
    "no goal": ({}, "give one of"),
    "two goals": ({"ratio": 0.5, "energy": 0.9}, "give one of"),
    "ratio": ({"ratio": 1.0}, "ratio 1: must lie between 0 and 1"),
    "energy": ({"energy": 1.5}, "energy 1.5: must lie between 0 and 1"),
    "target macs": ({"target_macs": 0.0}, "target macs 0: must lie between 0 and 1"),
    "speed": ({"target_speedup": 1.0}, "target speedup 1: must be more than 1"),
    "unmeasured speed": ({"target_speedup": 2.0, "measure": False}, "needs measurements"),
    "multiple": ({"ratio": 0.5, "multiple": 0}, "the multiple must be"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_settings_are_refused(wrong: str) -> None:
    options, message = WRONG[wrong]
    with pytest.raises(InputError, match=message):
        FactoriseSettings(**options)
