"""What is summed over samples is what can be computed from all of them at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.graph.kernel_times import kernel_times, node_time
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.linear import find_linear_layers
from trimton.transforms.linear.evidence import gather, input_squares, response_moments
from trimton.transforms.linear.layers import prepared

ModelMaker = Callable[..., ir.Model]

RESIDUAL = """g (float[N,4] x, float[4,4] a, float[4,4] b) => (float[N,4] y) {
  h = MatMul(x, a)
  i = Relu(h)
  j = MatMul(i, b)
  y = Add(j, x)
}"""


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def residual(make_model: ModelMaker) -> ir.Model:
    return prepared(make_model(RESIDUAL, a=normal(4, 4), b=normal(4, 4, seed=1)), "test")


def test_an_unchanged_network_leaves_no_error(residual: ir.Model) -> None:
    for layer in find_linear_layers(residual).layers:
        evidence = gather(residual.clone(), residual, layer, {"x": normal(200, 4, seed=2)})
        assert sum(moments.squares for moments in evidence.everything) == 0
        assert evidence.variance > 0
        assert sum(moments.count for moments in evidence.everything) == 192  # whole batches of 16


def test_the_error_is_that_of_the_sum_which_a_layer_adds_to(residual: ir.Model) -> None:
    original = residual.clone()
    first, second = find_linear_layers(residual).layers
    first.set_matrices(0.5 * first.matrices())
    x = normal(80, 4, seed=2)
    evidence = gather(original, residual, second, {"x": x})
    before, after = (run(open_session(m), {"x": x})["y"] for m in (original, residual))
    total = sum(moments.squares for moments in evidence.everything)
    assert np.isclose(total, np.square(before - after).sum(), rtol=1e-4)
    assert evidence.held_out is not None


def test_sums_of_inputs_and_outputs_are_those_of_all_samples(residual: ir.Model) -> None:
    x = normal(64, 4, seed=2)
    layers = find_linear_layers(residual).layers
    (squares, _), (responses, _) = (
        of(residual, layers, {"x": x}) for of in (input_squares, response_moments)
    )
    np.testing.assert_allclose(squares, np.square(x).mean(axis=0)[None], rtol=1e-5)
    made = x @ layers[0].matrices()[0]
    np.testing.assert_allclose(responses.gram, made.T @ made, rtol=1e-4, atol=1e-4)


def test_every_layer_is_found_in_the_profile_of_its_kernels(residual: ir.Model) -> None:
    both = kernel_times([residual, residual.clone()], {"x": normal(1, 4)})
    for times in both:
        for layer in find_linear_layers(residual).layers:
            assert node_time(times, layer.layer.node) is not None


def test_layers_that_read_the_input_alone_need_no_run(make_model: ModelMaker) -> None:
    graph = "g (float[N,4] x, float[4,3] a) => (float[N,3] y) { y = MatMul(x, a) }"
    model = prepared(make_model(graph, a=normal(4, 3)), "test")
    x = normal(32, 4, seed=2)
    (squares,) = input_squares(model, find_linear_layers(model).layers, {"x": x})
    np.testing.assert_allclose(squares, np.square(x).mean(axis=0)[None], rtol=1e-5)
