"""What removed channels gave on average goes into the next bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.graph.session import open_session, run
from trimton.transforms.prune import PruneSettings, prune

ModelMaker = Callable[..., ir.Model]


def output(model: ir.Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(run(open_session(model), {"x": x})["y"])


def constant_units(make_model: ModelMaker, second: str, **weights: np.ndarray) -> ir.Model:
    """Four of eight hidden units do not depend on the input: they give 1, 2, 3 and 4."""
    a = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    a[:, 4:] = 0
    c = np.array([0, 0, 0, 0, 1, 2, 3, 4], np.float32)
    declared = "".join(
        f", float[{','.join(map(str, array.shape))}] {name}" for name, array in weights.items()
    )
    return make_model(
        f"""g (float[N,6] x, float[6,8] a, float[8] c{declared}) => (float[N,3] y)
            {{ k = MatMul(x, a) h = Add(k, c) r = Relu(h) {second} }}""",
        a=a, c=c, **weights,
    )  # fmt: skip


B = np.random.default_rng(1).uniform(0.1, 0.2, (8, 3)).astype(np.float32)
BIAS = np.random.default_rng(2).standard_normal(3).astype(np.float32)
SECOND = {
    "MatMul": ("y = MatMul(r, b)", {"b": B}),
    "MatMul and Add": ("m = MatMul(r, b) y = Add(m, d)", {"b": B, "d": BIAS}),
    "Gemm": ("y = Gemm<alpha=0.5>(r, b, d)", {"b": B, "d": BIAS}),
    "Gemm without bias": ("y = Gemm(r, b)", {"b": B}),
    "Gemm with beta": ("y = Gemm<beta=2.0>(r, b, d)", {"b": B, "d": BIAS}),
}


@pytest.mark.parametrize("second", SECOND)
def test_constant_channels_go_without_a_trace(make_model: ModelMaker, second: str) -> None:
    text, weights = SECOND[second]
    model = constant_units(make_model, text, **weights)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((32, 6)).astype(np.float32)
    settings = PruneSettings(ratio=0.5, importance="l2", multiple=1, refit=False)
    pruned, report = prune(model, settings, {"x": x})
    assert report.steps[-1].name == "fold-constants"
    expected = output(model, x)
    np.testing.assert_allclose(output(pruned, x), expected, rtol=1e-4, atol=1e-5)
    neither = replace(settings, fold_constants=False)
    bare, _ = prune(model, neither, {"x": x})
    assert np.abs(output(bare, x) - expected).max() > 0.1


@pytest.mark.parametrize("has_bias", [False, True])
def test_a_shift_goes_through_its_activation_without_samples(
    make_model: ModelMaker, has_bias: bool
) -> None:
    rng = np.random.default_rng(0)
    scale = np.array([1, 1, 1, 1, 0, 0, 0, 0], np.float32)
    extra, declared = ({"d": BIAS[:2]}, ", float[2] d") if has_bias else ({}, "")
    model = make_model(
        f"""g (float[N,3,4,4] x, float[8,3,1,1] a, float[8] s, float[8] t, float[8] m, float[8] v,
               float[2,8,1,1] b{declared}) => (float[N,2,4,4] y)
            {{ c = Conv(x, a) n = BatchNormalization(c, s, t, m, v) r = Sigmoid(n)
               y = Conv(r, b{", d" if has_bias else ""}) }}""",
        a=rng.standard_normal((8, 3, 1, 1)).astype(np.float32), s=scale,
        t=rng.standard_normal(8).astype(np.float32), m=rng.standard_normal(8).astype(np.float32),
        v=np.ones(8, np.float32), b=rng.standard_normal((2, 8, 1, 1)).astype(np.float32), **extra,
    )  # fmt: skip
    settings = PruneSettings(ratio=0.5, importance="batchnorm-scale", multiple=1)
    pruned, report = prune(model, settings)
    assert report.steps[-1].name == "fold-constants"
    x = rng.standard_normal((4, 3, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(output(pruned, x), output(model, x), rtol=1e-4, atol=1e-5)


def test_mean_activations_bring_outputs_closer(
    make_model: ModelMaker,
) -> None:
    rng = np.random.default_rng(0)
    model = make_model(
        """g (float[N,3,6,6] x, float[16,3,3,3] a, float[16] c, float[4,16,3,3] b, float[4] d)
           => (float[N,4,2,2] y)
           { h = Conv(x, a, c) r = Relu(h) y = Conv(r, b, d) }""",
        a=rng.standard_normal((16, 3, 3, 3)).astype(np.float32),
        c=rng.uniform(2, 4, 16).astype(np.float32),
        b=rng.uniform(0, 0.2, (4, 16, 3, 3)).astype(np.float32),
        d=np.zeros(4, np.float32),
    )  # fmt: skip
    x = rng.standard_normal((64, 3, 6, 6)).astype(np.float32)
    settings = PruneSettings(ratio=0.5, refit=False, multiple=8)
    folded, _ = prune(model, settings, {"x": x})
    bare, _ = prune(model, replace(settings, fold_constants=False), {"x": x})
    expected = output(model, x)
    error = {m: np.abs(output(p, x) - expected).mean() for m, p in (("f", folded), ("b", bare))}
    assert error["f"] < 0.5 * error["b"]
