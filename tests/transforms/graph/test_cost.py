"""Costs: multiply-accumulates by hand, weights wherever they are, branches and loops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.graph.cost import model_cost, node_costs

Make = Callable[..., ir.Model]


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


CASES = {
    "conv": (
        (
            "g (float[N,4,8,8] x, float[6,2,3,3] w) => (float[N,6,M,K] y)"
            "{ y = Conv <group = 2, strides = [2, 2]> (x, w) }"
        ),
        {"w": zeros(6, 2, 3, 3)},
        6 * 3 * 3 * (2 * 3 * 3),
    ),
    "conv_transpose": (
        (
            "g (float[N,4,5,5] x, float[4,3,2,2] w) => (float[N,6,M,K] y)"
            "{ y = ConvTranspose <group = 2, strides = [2, 2]> (x, w) }"
        ),
        {"w": zeros(4, 3, 2, 2)},
        4 * 5 * 5 * (3 * 2 * 2),
    ),
    "matmul": (
        "g (float[N,7,3] x, float[3,5] w) => (float[N,7,5] y) { y = MatMul(x, w) }",
        {"w": zeros(3, 5)},
        7 * 3 * 5,
    ),
    "gemm_transposed": (
        (
            "g (float[3,N] x, float[5,3] w) => (float[N,5] y)"
            "{ y = Gemm <transA = 1, transB = 1> (x, w) }"
        ),
        {"w": zeros(5, 3)},
        3 * 5,
    ),
    "lstm": (
        (
            "g (float[6,N,3] x, float[2,20,3] w, float[2,20,5] r) => (float[6,2,N,5] y)"
            '{ y = LSTM <hidden_size = 5, direction = "bidirectional"> (x, w, r) }'
        ),
        {"w": zeros(2, 20, 3), "r": zeros(2, 20, 5)},
        6 * 2 * (20 * 3 + 20 * 5),
    ),
    "einsum": (
        (
            "g (float[N,7,3] x, float[3,5] w) => (float[N,7,5] y)"
            '{ y = Einsum <equation = "bik,kj->bij"> (x, w) }'
        ),
        {"w": zeros(3, 5)},
        7 * 3 * 5,
    ),
    "elementwise": (
        "g (float[N,7] x, float[7] w) => (float[N,7] y) { a = Mul(x, w) y = Relu(a) }",
        {"w": zeros(7)},
        0,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_multiply_accumulates(make_model: Make, name: str) -> None:
    text, weights, expected = CASES[name]
    cost = model_cost(make_model(text, **weights))
    assert cost.macs == expected
    assert cost.parameters == sum(weight.size for weight in weights.values())


def test_free_dimensions_count_as_asked(make_model: Make) -> None:
    text, weights, expected = CASES["matmul"]
    assert model_cost(make_model(text, **weights), {"N": 9}).macs == 9 * expected


def test_shapes_that_the_model_computes_are_followed(make_model: Make) -> None:
    model = make_model(
        """g (float[N,4,6] x, int64[1] zero, int64[1] one, int64[1] rest, float[6,5] w)
        => (float[M,5] y)
        { shape = Shape(x)
          last = Gather(shape, one)
          as_float = Cast <to = 1> (last)
          back = Cast <to = 7> (as_float)
          wide = Mul(back, one)
          six = Add(wide, one)
          again = Add(six, one)
          target = Concat <axis = 0> (rest, again)
          flat = Reshape(x, target)
          y = MatMul(flat, w) }""",
        zero=np.zeros(1, np.int64),
        one=np.ones(1, np.int64),
        rest=np.full(1, -1, np.int64),
        w=zeros(6, 5),
    )
    assert model_cost(model).macs == 4 * 6 * 5


def test_the_larger_branch_counts(make_model: Make) -> None:
    model = make_model(
        """g (float[2,3] x, bool c, float[3,5] w) => (float[2,5] y)
        { y = If (c) <then_branch = a () => (float[2,5] t) { t = MatMul(x, w) },
                      else_branch = b () => (float[2,5] e) { d = Add(x, x) e = MatMul(d, w) }> }""",
        w=zeros(3, 5),
    )
    cost = model_cost(model)
    assert cost.macs == 2 * 3 * 5
    assert cost.nodes == 4
    assert [node.depth for node in node_costs(model)] == [0, 1, 1, 1]


def test_a_loop_counts_as_often_as_it_runs(make_model: Make) -> None:
    model = make_model(
        """g (float[2,3] x, int64 trips, bool go, float[3,3] w) => (float[2,3] y)
        { y = Loop (trips, go, x) <body = b (int64 i, bool on, float[2,3] s)
            => (bool off, float[2,3] t) { off = Identity(on) t = MatMul(s, w) }> }""",
        trips=np.array(5),
        go=np.array(True),
        w=zeros(3, 3),
    )
    assert model_cost(model).macs == 5 * 2 * 3 * 3


def test_shape_constants_are_no_parameters(make_model: Make) -> None:
    model = make_model(
        "g (float[N,4] x, int64[2] s) => (float[M,2] y) { y = Reshape(x, s) }",
        s=np.array([-1, 2]),
    )
    assert model_cost(model).parameters == 0


def test_what_cannot_be_inferred_is_unknown_not_zero(make_model: Make) -> None:
    model = make_model(
        "g (float[N,4] x, int64[2] s, float[2,3] w) => (float[M,3] y)"
        "{ a = Reshape(x, s) y = MatMul(a, w) }",
        w=zeros(2, 3),
    )
    assert model_cost(model).macs is None
