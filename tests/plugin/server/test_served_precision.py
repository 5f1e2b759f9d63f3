"""Models in blocks, dynamically quantised and in half precision, on a real Triton."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimton.transforms.graph.session import open_session, run
from trimton.transforms.precision import CastSettings, cast
from trimton.transforms.quantize.dynamic import quantize_dynamic
from trimton.transforms.quantize.weight_only import WeightOnlySettings, quantize_weights

MAKERS: Mapping[str, Callable[[ir.Model], ir.Model]] = {
    "blocks": lambda m: quantize_weights(m, WeightOnlySettings(symmetric=False))[0],
    "restored": lambda m: quantize_weights(m, WeightOnlySettings(bits=8, restore=True))[0],
    "dynamic": lambda m: quantize_dynamic(m)[0],
    "half_storage": lambda m: cast(m, CastSettings("bfloat16"))[0],
    "half": lambda m: cast(m, CastSettings(target="gpu", keep_io=False))[0],
}


def network() -> ir.Model:
    """A convolution, then a Gemm."""
    rng = np.random.default_rng(0)
    weights = {
        "w": 0.1 * rng.standard_normal((32, 16, 3, 3)),
        "v": 0.1 * rng.standard_normal((512, 24)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Flatten", ["c"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "v"], ["y"], name="gemm"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 24])],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8))


@pytest.mark.server
@pytest.mark.parametrize("kind", MAKERS)
def test_triton_answers_as_the_runtime_does(triton: Any, kind: str) -> None:
    original = network()
    made = MAKERS[kind](original)
    dtype = np.float16 if kind == "half" else np.float32
    x = np.random.default_rng(1).standard_normal((3, 16, 6, 6)).astype(dtype)

    model: onnx.ModelProto = ir.to_proto(made)
    triton.serve(f"served_{kind}", model)
    answer = triton.infer(f"served_{kind}", {"x": x})["y"]

    assert answer.dtype == dtype
    (here,) = run(open_session(made, optimise=True), {"x": x}).values()
    np.testing.assert_allclose(answer, here, rtol=1e-3, atol=1e-3)
    (want,) = run(open_session(original), {"x": x.astype(np.float32)}).values()
    noise = np.sqrt(np.square(answer - want).mean() / np.square(want).mean())
    assert noise < (0.15 if kind == "blocks" else 0.03)
