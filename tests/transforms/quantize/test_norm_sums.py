"""Sums before layer normalisations: the same numbers, and no fusion with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from trimton.transforms.graph.session import open_session, run
from trimton.transforms.graph.shapes import infer_shapes
from trimton.transforms.quantize.norm_sums import keep_norm_sums

ModelMaker = Callable[..., ir.Model]

RNG = np.random.default_rng(5)
SCALE = RNG.normal(size=16).astype(np.float32)
NORM = "y = LayerNormalization<axis=-1>(a, s)"
IN_SINGLE_OPERATORS = (
    "m = ReduceMean<axes=[-1]>(a) d = Sub(a, m) q = Mul(d, d) v = ReduceMean<axes=[-1]>(q) "
    "r = Sqrt(v) n = Div(d, r) y = Mul(n, s)"
)


def summed(make_model: ModelMaker, norm: str, operands: str = "x, z") -> ir.Model:
    model = make_model(
        f"g (float[N,8,16] x, float[N,8,16] z, float[16] s, float[16] b) => (float[N,8,16] y) "
        f"{{ a = Add({operands}) {norm} }}",
        s=SCALE,
        b=SCALE + 1,
    )
    infer_shapes(model)
    return model


def optimised(model: ir.Model, folder: Path) -> Counter[str]:
    """The operators that the runtime makes of ``model``."""
    ir.save(model, folder / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(folder / "model.onnx", options)
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


@pytest.mark.parametrize("norm", [NORM, IN_SINGLE_OPERATORS])
def test_a_sum_of_activations_is_not_fused_and_stays_the_same_to_the_bit(
    make_model: ModelMaker, tmp_path: Path, norm: str
) -> None:
    model = summed(make_model, norm)
    feed = {name: RNG.normal(size=(2, 8, 16)).astype(np.float32) for name in ("x", "z")}
    before = run(open_session(model), feed)["y"]

    (step,) = keep_norm_sums(model)

    assert step.count == 1
    assert optimised(model, tmp_path)["SkipLayerNormalization"] == 0
    assert next(node.op_type for node in model.graph) == "Sum"
    assert np.array_equal(run(open_session(model), feed)["y"], before)


def test_without_it_the_runtime_fuses_them(make_model: ModelMaker, tmp_path: Path) -> None:
    assert optimised(summed(make_model, NORM), tmp_path)["SkipLayerNormalization"] == 1


@pytest.mark.parametrize(
    ("norm", "operands"), [("y = Relu(a)", "x, z"), (NORM, "x, b"), ("y = Sub(a, x)", "x, z")]
)
def test_other_sums_stay_as_they_are(make_model: ModelMaker, norm: str, operands: str) -> None:
    model = summed(make_model, norm, operands)

    assert keep_norm_sums(model) == ()
    assert next(node.op_type for node in model.graph) == "Add"
