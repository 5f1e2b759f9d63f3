"""Which nodes are linear layers, their weights as matrices, and why others are none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.graph.edit import Editor
from trimton.transforms.graph.inputs import interface
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.linear import LinearLayer, find_linear_layers
from trimton.transforms.linear.layers import prepared
from trimton.transforms.prune.refit.features import rows

ModelMaker = Callable[..., ir.Model]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


CONV = "g (float[2,{c},7,6] x, float[6,{i},3,3] w) => (float[a,b,c,d] y) {{ y = Conv<{a}>(x, w) }}"
GEMM = "g (float[9,5] x, float[{k},{n}] w) => (float[9,4] y) {{ y = Gemm<{a}>(x, w) }}"

LAYERS = {
    "plain": (CONV.format(c=4, i=4, a="pads=[1,1,1,1]"), (2, 4, 7, 6), (6, 4, 3, 3)),
    "grouped": (CONV.format(c=4, i=2, a="group=2, strides=[2,1]"), (2, 4, 7, 6), (6, 2, 3, 3)),
    "depthwise": (CONV.format(c=6, i=1, a="group=6"), (2, 6, 7, 6), (6, 1, 3, 3)),
    "Gemm": (GEMM.format(k=5, n=4, a="alpha=0.5"), (9, 5), (5, 4)),
    "Gemm transposed": (GEMM.format(k=4, n=5, a="transB=1, alpha=2.0"), (9, 5), (4, 5)),
    "MatMul": (
        "g (float[2,3,5] x, float[5,4] w) => (float[2,3,4] y) { y = MatMul(x, w) }",
        (2, 3, 5),
        (5, 4),
    ),
}


@pytest.fixture(params=LAYERS)
def case(make_model: ModelMaker, request: pytest.FixtureRequest) -> tuple[ir.Model, np.ndarray]:
    graph, data, weight = LAYERS[request.param]
    return make_model(graph, w=normal(*weight)), normal(*data, seed=1)


def only(model: ir.Model) -> LinearLayer:
    (layer,) = find_linear_layers(model).layers
    return layer


def test_features_times_matrices_are_the_output(case: tuple[ir.Model, np.ndarray]) -> None:
    model, x = case
    layer = only(model)
    batch = rows(layer.layer, x, 10**6, np.random.default_rng(0))
    matrices = layer.matrices()
    assert matrices.shape == layer.shape
    features = batch.features.reshape(len(batch.features), layer.groups, -1)
    made = np.einsum("rgf,gfo->rgo", features, matrices).reshape(len(features), -1)
    np.testing.assert_allclose(
        made, batch.select(run(open_session(model), {"x": x})["y"]), atol=1e-4
    )


def test_matrices_go_back_to_the_weight_they_came_from(case: tuple[ir.Model, np.ndarray]) -> None:
    model, _ = case
    layer = only(model)
    before = layer.layer.weight.const_value
    assert before is not None
    np.testing.assert_allclose(layer.as_weight(layer.matrices()), before.numpy(), rtol=1e-6)


def test_a_constant_moves_the_output_by_itself(case: tuple[ir.Model, np.ndarray]) -> None:
    """Whatever factor Gemm gives its product, and whether there is a bias or not."""
    model, x = case
    moved = prepared(model, "test")
    layer = only(moved)
    amount = normal(layer.groups * layer.shape[2], seed=2)
    layer.add_constant(amount, Editor(moved))
    before, after = (run(open_session(m), {"x": x})["y"] for m in (model, moved))
    shape = (-1, 1, 1) if layer.kernel else (-1,)
    np.testing.assert_allclose(after - before, np.broadcast_to(amount.reshape(shape), before.shape),
                               atol=1e-5)  # fmt: skip


NOT_LINEAR = {
    "computed": (
        "g (float[3,4] x) => (float[3,3] y) { t = Transpose(x)  y = MatMul(x, t) }",
        {},
        "it multiplies two activations",
    ),
    "first factor": (
        "g (float[4,3] x, float[5,4] w) => (float[5,3] y) { y = MatMul(w, x) }",
        {"w": (5, 4)},
        "its weight is the first factor",
    ),
    "stack of matrices": (
        "g (float[2,3,4] x, float[2,4,5] w) => (float[2,3,5] y) { y = MatMul(x, w) }",
        {"w": (2, 4, 5)},
        "it is no product of rows and one matrix",
    ),
    "transposed rows": (
        "g (float[4,3] x, float[4,5] w) => (float[3,5] y) { y = Gemm<transA=1>(x, w) }",
        {"w": (4, 5)},
        "it reads its rows transposed",
    ),
    "shared": (
        "g (float[3,4] x, float[4,4] w) => (float[3,4] y) { h = MatMul(x, w)  y = Add(h, w) }",
        {"w": (4, 4)},
        "its weight is used elsewhere, too",
    ),
    "computed kernel": (
        """g (float[1,3,5,5] x, float[2,3,3,3] k) => (float[1,2,3,3] y) {
          w = Relu(k)
          y = Conv(x, w)
        }""",
        {"k": (2, 3, 3, 3)},
        "its weight is computed",
    ),
}


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_what_is_no_layer_is_named_with_the_reason(make_model: ModelMaker, name: str) -> None:
    graph, weights, why = NOT_LINEAR[name]
    model = make_model(graph, **{w: normal(*shape) for w, shape in weights.items()})
    found = find_linear_layers(model)
    assert found.layers == ()
    assert [one.why for one in found.skipped] == [why]


def test_a_quantised_model_is_refused(make_model: ModelMaker) -> None:
    model = make_model(
        """g (float[3,4] x, float s, uint8 z) => (float[3,4] y) {
          q = QuantizeLinear(x, s, z)
          y = DequantizeLinear(q, s, z)
        }""",
        s=np.float32(0.1),
        z=np.uint8(128),
    )
    with pytest.raises(UnsupportedModelError, match="sparsify the float model"):
        prepared(model, "sparsify")


def test_preparing_keeps_the_interface(make_model: ModelMaker) -> None:
    """The file calls the rows of its output otherwise than inference does."""
    graph = "g (float[N,4] x, float[4,3] w) => (float[rows,3] y) { y = MatMul(x, w) }"
    model = make_model(graph, w=normal(4, 3))
    assert interface(prepared(model, "test")) == interface(model)
