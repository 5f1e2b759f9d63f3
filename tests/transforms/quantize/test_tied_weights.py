"""A constant that several nodes compute with suits all of their kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import constant_array
from trimton.transforms.quantize import QuantizeSettings, quantize
from trimton.transforms.quantize.weights.pairs import saturating_pairs

ModelMaker = Callable[..., ir.Model]
RNG = np.random.default_rng(0)
# Neighbours of one sign, near the largest: their sums saturate unless that is looked after.
WEIGHT = RNG.uniform(0.8, 1.0, (64, 64)).astype(np.float32)
SETTINGS = QuantizeSettings(target="avx2", smooth=False)


def integers(model: ir.Model) -> np.ndarray:
    array = constant_array(model.graph.initializers["w_quantized"])
    assert array is not None
    return array


def test_a_table_that_is_a_weight_too_is_safe_for_the_weight_s_kernel(
    make_model: ModelMaker,
) -> None:
    model = make_model(
        "g (int64[N] x, float[64,64] w) => (float[N,64] y) { e = Gather(w, x) y = MatMul(e, w) }",
        w=WEIGHT,
    )

    quantised, _ = quantize(model, {"x": RNG.integers(0, 64, 32)}, SETTINGS)

    assert saturating_pairs(integers(quantised).T) == 0


def test_a_weight_that_is_summed_in_two_orders_is_safe_in_both(make_model: ModelMaker) -> None:
    model = make_model(
        "g (float[N,64] x, float[64,64] w) => (float[N,64] y)"
        "{ a = MatMul(x, w) y = Gemm<transB=1>(a, w) }",
        w=WEIGHT,
    )

    samples = {"x": RNG.normal(size=(32, 64)).astype(np.float32)}
    quantised, _ = quantize(model, samples, SETTINGS)

    made = integers(quantised)
    assert saturating_pairs(made) == saturating_pairs(made.T) == 0
    assert 60 < np.abs(made).max() <= 64  # all of the range that is safe
