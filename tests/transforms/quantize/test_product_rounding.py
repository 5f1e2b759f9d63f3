"""Products whose weights make up for each other's rounding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.graph.edit import constant_array
from trimton.transforms.quantize import QuantizeSettings, quantize
from trimton.transforms.quantize.integer_layers import integer_layers
from trimton.transforms.quantize.prepare import prepare
from trimton.transforms.quantize.product_rounding import ProductRounding
from trimton.transforms.quantize.quantiser import Quantiser
from trimton.transforms.quantize.targets import target_named

ModelMaker = Callable[..., ir.Model]

RNG = np.random.default_rng(3)
TERMS = 48
MIXING = RNG.normal(size=(6, TERMS)) + 0.1 * RNG.normal(size=(1, TERMS))
MATRIX = RNG.normal(size=(TERMS, 24)).astype(np.float32)


def correlated(count: int) -> np.ndarray:
    """Rows that vary in few directions, as activations do, and a little in all."""
    rows = RNG.normal(size=(count, 6)) @ MIXING + 0.05 * RNG.normal(size=(count, TERMS))
    return rows.astype(np.float32)


@pytest.fixture
def product(make_model: ModelMaker) -> ir.Model:
    return make_model(
        f"g (float[N,{TERMS}] x, float[{TERMS},24] w) => (float[N,24] y) {{ y = MatMul(x, w) }}",
        w=MATRIX,
    )


def weights(model: ir.Model) -> np.ndarray:
    """The weights that the integers of a product's model stand for."""
    integers, scale = (
        array
        for name in ("w_quantized", "w_scale")
        if (array := constant_array(model.graph.initializers[name])) is not None
    )
    return np.asarray(integers.astype(np.float32) * scale)


def loss(model: ir.Model, rows: np.ndarray) -> float:
    return float(np.square(rows @ (weights(model) - MATRIX)).mean())


@pytest.mark.parametrize("judged", [False, True])
@pytest.mark.parametrize("target", ["avx2", "avx512_vnni"])
def test_rows_that_were_not_seen_lose_less(product: ir.Model, target: str, judged: bool) -> None:
    prepared, _ = prepare(product)
    settings = QuantizeSettings("minmax", compensate=False)
    quantiser = Quantiser(prepared, {"x": correlated(512)}, target_named(target), settings)
    placement = quantiser.place()
    model, unseen = quantiser.make(placement).model, correlated(512)
    plain = loss(model, unseen)
    layers = integer_layers(prepared, model, placement.weights)

    names = ProductRounding(prepared, quantiser.batches).round(layers, judged=judged)

    assert len(names) == 1
    assert loss(model, unseen) < 0.6 * plain


def test_the_report_names_the_products(product: ir.Model) -> None:
    _, report = quantize(product, {"x": correlated(512)}, QuantizeSettings("minmax"))

    (step,) = [step for step in report.steps if step.name == "compensate"]
    assert (step.count, len(step.detail["layers"])) == (1, 1)


def test_too_few_rows_change_nothing(product: ir.Model) -> None:
    samples = {"x": correlated(TERMS)}
    made = [
        quantize(product, samples, QuantizeSettings("minmax", compensate=c))[0]
        for c in (True, False)
    ]

    assert np.array_equal(weights(made[0]), weights(made[1]))


def test_without_products_no_sample_is_read(product: ir.Model) -> None:
    def never() -> list[dict[str, np.ndarray]]:
        raise AssertionError("the samples were read")

    assert ProductRounding(product, never).round([], judged=True) == ()
