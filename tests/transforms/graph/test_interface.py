"""The interface of a model, and whether it is quantised."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.graph.inputs import input_specs, output_specs
from trimton.transforms.graph.quantised import quantised_nodes

Make = Callable[..., ir.Model]


def test_names_types_and_shapes(make_model: Make) -> None:
    model = make_model(
        "g (float16[N,3] x, string[2] s, int64 k) => (float16[N,3] y, string[2] t, int64 m)"
        "{ y = Relu(x) t = Identity(s) m = Neg(k) }"
    )
    x, s, k = input_specs(model)
    assert (x.name, x.dtype, x.shape, x.optional) == ("x", np.float16, (None, 3), False)
    assert (s.dtype, s.shape) == (np.dtype(object), (2,))
    assert k.shape == ()
    assert [spec.name for spec in output_specs(model)] == ["y", "t", "m"]


def test_an_input_with_a_default_is_optional(make_model: Make) -> None:
    model = make_model(
        "g (float[N,3] x, float[3] b) => (float[N,3] y) { y = Add(x, b) }",
        b=np.ones(3, np.float32),
    )
    model.graph.inputs.append(model.graph.initializers["b"])
    assert [(spec.name, spec.optional) for spec in input_specs(model)] == [
        ("x", False),
        ("b", True),
    ]


def test_what_is_no_tensor_is_refused() -> None:
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [2])
    graph = helper.make_graph(
        [helper.make_node("SequenceLength", ["s"], ["n"])],
        "g",
        [sequence],
        [helper.make_tensor_value_info("n", TensorProto.INT64, [])],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    with pytest.raises(UnsupportedModelError, match="input 's' of the model is no tensor"):
        input_specs(model)


def test_an_unranked_input_is_refused(make_model: Make) -> None:
    model = make_model("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    model.graph.inputs[0].shape = None
    with pytest.raises(UnsupportedModelError, match="has no declared rank"):
        input_specs(model)


QUANTISED_OPERATORS = {
    name
    for name in (schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == "")
    if "Quantize" in name or "QLinear" in name or name.endswith("Integer")
}


def test_every_quantised_operator_of_the_standard_is_known(make_model: Make) -> None:
    model = make_model("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    assert quantised_nodes(model) == ()
    assert len(QUANTISED_OPERATORS) >= 6
    for name in QUANTISED_OPERATORS:
        model.graph.node(0).op_type = name
        assert quantised_nodes(model) == (f"{name} (n0)",)


@pytest.mark.parametrize("name", ["MatMulNBits", "DynamicQuantizeLSTM", "QAttention", "QGemm"])
def test_quantised_operators_of_the_runtime_are_known_in_branches(
    make_model: Make, name: str
) -> None:
    model = make_model(
        """g (float[2] x, bool c) => (float[2] y)
        { y = If (c) <then_branch = a () => (float[2] t) { t = Relu(x) },
                      else_branch = b () => (float[2] e) { e = Neg(x) }> }"""
    )
    inner = next(node for node in model.graph.all_nodes() if node.op_type == "Relu")
    inner.op_type, inner.domain = name, "com.microsoft"
    assert len(quantised_nodes(model)) == 1
