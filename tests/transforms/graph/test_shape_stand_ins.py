"""Stand-ins: a model with ONNX Runtime's operators has the shapes and the cost of its original."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.shapes import bind_free_dims
from trimton.transforms.quantize.dynamic import quantize_dynamic
from trimton.transforms.quantize.weight_only import WeightOnlySettings, quantize_weights


def normal(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def network(make_model: Any) -> ir.Model:
    model: ir.Model = make_model(
        "g (int64[N,L] i, float[100,64] t, float[64,96] a, float[96,80] b) => (float[N,L,80] y)"
        "{ e = Gather(t, i) h = MatMul(e, a) r = Relu(h) y = MatMul(r, b) }",
        t=normal(100, 64),
        a=normal(64, 96),
        b=normal(96, 80),
    )
    return model


def test_products_and_tables_in_blocks_cost_what_they_did(make_model: Any) -> None:
    model = network(make_model)
    for settings in (WeightOnlySettings(), WeightOnlySettings(bits=8, block=64)):
        made, report = quantize_weights(model, settings)

        assert report.before.macs == report.after.macs == 64 * 96 + 96 * 80
        bind_free_dims(made, {"N": 3, "L": 5})
        shapes = [node.outputs[0].shape for node in made.graph]
        assert shapes == [(3, 5, 64), (3, 5, 96), (3, 5, 96), (3, 5, 80)]


def test_dynamic_products_and_lstms_cost_what_they_did(make_model: Any) -> None:
    _, report = quantize_dynamic(network(make_model))
    assert report.before.macs == report.after.macs

    lstm = make_model(
        "g (float[7,N,24] x, float[1,128,24] w, float[1,128,32] r) => (float[7,1,N,32] y)"
        "{ y = LSTM<hidden_size=32>(x, w, r) }",
        w=normal(1, 128, 24),
        r=normal(1, 128, 32),
    )
    made, report = quantize_dynamic(lstm)
    assert report.before.macs == report.after.macs == 7 * 128 * (24 + 32)
    bind_free_dims(made, {"N": 2})
    assert made.graph.node(0).outputs[0].shape == (7, 1, 2, 32)
