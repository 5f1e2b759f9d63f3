from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.graph.edit import constant_array
from trimton.transforms.quantize.bias_correction import bias_of

BIAS = np.array([100, -7], np.int32)
SCALE = np.array([0.5, 0.25], np.float32)


def node(model: ir.Model, op_type: str) -> ir.Node:
    return next(node for node in model.graph if node.op_type == op_type)


def test_an_integer_bias_moves_by_whole_steps_of_its_scale(make_model) -> None:
    model = make_model(
        """g (float[N,3] x, float[3,2] w, int32[2] b, float[2] s) => (float[N,2] y) {
            f = DequantizeLinear<axis=0>(b, s)
            y = Gemm(x, w, f)
        }""",
        w=np.ones((3, 2), np.float32),
        b=BIAS,
        s=SCALE,
    )
    bias = bias_of(node(model, "Gemm"), 2)
    assert bias is not None
    bias.add(np.array([1.1, -1.1]))
    assert constant_array(model.graph.initializers["b"]).tolist() == [102, -11]


def test_an_integer_bias_stays_within_32_bits(make_model) -> None:
    model = make_model(
        """g (float[N,3] x, float[3,2] w, int32[2] b, float[2] s) => (float[N,2] y) {
            f = DequantizeLinear<axis=0>(b, s)
            y = Gemm(x, w, f)
        }""",
        w=np.ones((3, 2), np.float32),
        b=BIAS,
        s=SCALE,
    )
    bias = bias_of(node(model, "Gemm"), 2)
    assert bias is not None
    bias.add(np.array([1e12, -1e12]))
    assert constant_array(model.graph.initializers["b"]).tolist() == [2**31 - 1, -(2**31)]


@pytest.mark.parametrize("operands", ["b, h", "h, b"])
def test_the_bias_of_a_matrix_product_is_added_behind_it(make_model, operands) -> None:
    model = make_model(
        f"""g (float[N,3] x, float[3,2] w, float[2] b) => (float[N,2] y) {{
            h = MatMul(x, w)
            y = Add({operands})
        }}""",
        w=np.ones((3, 2), np.float32),
        b=np.array([1.0, 2.0], np.float32),
    )
    bias = bias_of(node(model, "MatMul"), 2)
    assert bias is not None
    bias.add(np.array([0.5, -0.5]))
    assert constant_array(model.graph.initializers["b"]).tolist() == [1.5, 1.5]


@pytest.mark.parametrize(
    "body",
    [
        "y = MatMul(x, w)",
        "h = MatMul(x, w)\n y = Add(h, h)",
        "h = MatMul(x, w)\n a = Add(h, b)\n y = Add(a, b)",
        "h = MatMul(x, w)\n y = Add(h, one)",
    ],
)
def test_what_is_no_bias_of_its_own_is_left_alone(make_model, body) -> None:
    model = make_model(
        f"g (float[N,3] x, float[3,2] w, float[2] b, float[1] one) => (float[N,2] y) {{ {body} }}",
        w=np.ones((3, 2), np.float32),
        b=np.array([1.0, 2.0], np.float32),
        one=np.ones(1, np.float32),
    )
    assert bias_of(node(model, "MatMul"), 2) is None


def test_a_scalar_is_no_bias_of_a_layer_with_one_output(make_model) -> None:
    model = make_model(
        """g (float[N,3] x, float[3,1] w, float b) => (float[N,1] y) {
            h = MatMul(x, w)
            y = Add(h, b)
        }""",
        w=np.ones((3, 1), np.float32),
        b=np.float32(1),
    )
    assert bias_of(node(model, "MatMul"), 1) is None
