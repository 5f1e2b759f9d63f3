"""Shapes: inferred from inputs and weights, whatever the file says in between."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.inputs import interface
from trimton.transforms.graph.shapes import (
    bind_free_dims,
    infer_shapes,
    known_dims,
    restored_declarations,
    static_shape,
)

Make = Callable[..., ir.Model]


def shapes(model: ir.Model) -> dict[str, tuple[int | None, ...] | None]:
    values = [value for node in model.graph.all_nodes() for value in node.outputs]
    return {value.name: known_dims(value) for value in values}


def test_stale_annotations_are_replaced_and_the_interface_kept(make_model: Make) -> None:
    model = make_model(
        "g (float[N,3] x, float[3,4] w) => (float[1,9] y)"
        "<float[1,99] h> { h = MatMul(x, w) y = Relu(h) }",
        w=np.ones((3, 4), np.float32),
    )
    before = interface(model)
    with restored_declarations(model):
        infer_shapes(model)
        assert shapes(model) == {"h": (None, 4), "y": (None, 4)}
    assert interface(model) == before


def test_values_that_are_no_tensors_keep_their_type(make_model: Make) -> None:
    model = make_model(
        "g (float[2] x, int64 i) => (float[M] y) { s = SequenceConstruct(x, x)"
        " y = SequenceAt(s, i) }",
        i=np.array(0),
    )
    infer_shapes(model)
    assert isinstance(model.graph.node(0).outputs[0].type, ir.SequenceType)


def test_large_weights_of_branches_with_equal_names_are_told_apart(make_model: Make) -> None:
    model = make_model(
        """g (float[2,40] x, bool c, float[40,40] w) => (float[2,K] y)
        { y = If (c) <then_branch = a () => (float[2,K] t) { t = MatMul(x, w) },
                      else_branch = b () => (float[2,K] e) { f = Neg(x) e = MatMul(f, w) }> }""",
        w=np.ones((40, 40), np.float32),
    )
    for graph, width in zip(list(model.graphs())[1:], (40, 30), strict=True):
        node = next(node for node in graph if node.op_type == "MatMul")
        inner = ir.Value(
            name="inner",
            shape=ir.Shape([40, width]),
            type=ir.TensorType(ir.DataType.FLOAT),
            const_value=ir.tensor(np.ones((40, width), np.float32)),
        )
        graph.register_initializer(inner)
        node.replace_input_with(1, inner)
    infer_shapes(model)
    assert shapes(model)["t"] == (2, 40)
    assert shapes(model)["e"] == (2, 30)


def test_free_dimensions_get_the_size_of_their_name(make_model: Make) -> None:
    model = make_model("g (float[N,M,3] x) => (float[N,M,3] y) { h = Neg(x) y = Relu(h) }")
    bind_free_dims(model, {"M": 5}, default=2)
    assert static_shape(model.graph.outputs[0]) == (2, 5, 3)
