"""The method of ranges that is left open is the one whose outputs are clearly closest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.graph.session import open_session, run
from trimton.transforms.quantize import QuantizeSettings, quantize
from trimton.transforms.quantize.range_choice import CANDIDATES

ModelMaker = Callable[..., ir.Model]
RNG = np.random.default_rng(2)
WEIGHT = RNG.normal(size=(16, 16)).astype(np.float32)
# What channel 3 holds hardly matters to the outputs, however large it is.
WEIGHT[3] *= 1e-4
SETTINGS = QuantizeSettings(target="avx512_vnni", smooth=False)


def chosen(report: object) -> str:
    (step,) = [step for step in report.steps if step.name == "range-method"]
    return str(step.detail["method"])


def error(model: ir.Model, quantised: ir.Model, samples: dict[str, np.ndarray]) -> float:
    (exact,), (made,) = (run(open_session(one), samples).values() for one in (model, quantised))
    return float(np.square(made - exact).mean())


@pytest.mark.parametrize("largest", [1.0, 50.0])
def test_the_method_clips_where_that_leaves_the_outputs_closer(
    make_model: ModelMaker, largest: float
) -> None:
    model = make_model(
        "g (float[N,64,16] x, float[16,16] w) => (float[N,64,16] y) { y = MatMul(x, w) }", w=WEIGHT
    )
    x = RNG.uniform(-1, 1, (64, 64, 16)).astype(np.float32)
    x[5, 3, 3] = largest
    samples = {"x": x}

    quantised, report = quantize(model, samples, SETTINGS)

    errors = {
        name: error(
            model, quantize(model, samples, replace(SETTINGS, calibration_method=name))[0], samples
        )
        for name in CANDIDATES
    }
    closest = min(errors, key=lambda name: errors[name])
    is_clear = errors[closest] < 0.95 * errors["minmax"]
    assert is_clear == (largest > 1)
    assert chosen(report) == (closest if is_clear else "minmax")
    assert error(model, quantised, samples) == pytest.approx(errors[chosen(report)])


def test_a_method_that_is_named_is_taken(make_model: ModelMaker) -> None:
    model = make_model(
        "g (float[N,16] x, float[16,16] w) => (float[N,16] y) { y = MatMul(x, w) }", w=WEIGHT
    )
    samples = {"x": RNG.normal(size=(8, 16)).astype(np.float32)}

    _, report = quantize(model, samples, replace(SETTINGS, calibration_method="entropy"))

    assert not [step for step in report.steps if step.name == "range-method"]
