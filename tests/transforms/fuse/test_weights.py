"""Folding BatchNormalization and per-channel arithmetic into weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import TransformError
from trimton.transforms.fuse import batchnorm, fuse
from trimton.transforms.fuse.affine import ChannelAffine

Make = Callable[..., ir.Model]
Fuse = Callable[[ir.Model], Any]
RNG = np.random.default_rng(0)


def rand(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def norm(channels: int) -> dict[str, np.ndarray]:
    """Weights g, b, m, v of a BatchNormalization."""
    return {
        "g": rand(channels) + 1,
        "b": rand(channels),
        "m": rand(channels),
        "v": RNG.uniform(0.5, 2, channels).astype(np.float32),
    }


NORM = "float[C] g, float[C] b, float[C] m, float[C] v"
# Name: (graph before the BatchNormalization of h, channels, weights, operators left)
LINEAR = {
    "conv": ("float[6,4,3,3] w", "h = Conv(x, w)", 6, {"w": rand(6, 4, 3, 3)}, "Conv"),
    "conv with bias": (
        "float[6,4,3,3] w, float[6] c",
        "h = Conv <pads = [1, 1, 1, 1]> (x, w, c)",
        6,
        {"w": rand(6, 4, 3, 3), "c": rand(6)},
        "Conv",
    ),
    "grouped conv": (
        "float[6,2,3,3] w",
        "h = Conv <group = 2> (x, w)",
        6,
        {"w": rand(6, 2, 3, 3)},
        "Conv",
    ),
    "depthwise conv": (
        "float[4,1,3,3] w",
        "h = Conv <group = 4> (x, w)",
        4,
        {"w": rand(4, 1, 3, 3)},
        "Conv",
    ),
    "transposed conv": (
        "float[4,6,3,3] w, float[6] c",
        "h = ConvTranspose <strides = [2, 2]> (x, w, c)",
        6,
        {"w": rand(4, 6, 3, 3), "c": rand(6)},
        "ConvTranspose",
    ),
    "grouped transposed conv": (
        "float[4,3,3,3] w",
        "h = ConvTranspose <group = 2> (x, w)",
        6,
        {"w": rand(4, 3, 3, 3)},
        "ConvTranspose",
    ),
    "normalisation": (
        "float[4] g2, float[4] b2, float[4] m2, float[4] v2",
        "h = BatchNormalization(x, g2, b2, m2, v2)",
        4,
        {f"{name}2": value for name, value in norm(4).items()},
        "BatchNormalization",
    ),
}
FLAT = {
    "gemm": (
        "float[5,6] w, float[6] c",
        "h = Gemm <alpha = 0.5, beta = 2.0> (x, w, c)",
        {"w": rand(5, 6), "c": rand(6)},
    ),
    "transposed gemm without bias": (
        "float[6,5] w",
        "h = Gemm <transB = 1> (x, w)",
        {"w": rand(6, 5)},
    ),
    "gemm with a bias of one row": (
        "float[5,6] w, float[1,6] c",
        "h = Gemm(x, w, c)",
        {"w": rand(5, 6), "c": rand(1, 6)},
    ),
    "gemm with a bias of one number": (
        "float[5,6] w, float[1] c",
        "h = Gemm(x, w, c)",
        {"w": rand(5, 6), "c": rand(1)},
    ),
    "matmul": ("float[5,6] w", "h = MatMul(x, w)", {"w": rand(5, 6)}),
    "matmul and add": (
        "float[5,6] w, float[6] c",
        "p = MatMul(x, w) h = Add(c, p)",
        {"w": rand(5, 6), "c": rand(6)},
    ),
}


@pytest.mark.parametrize("opset", [7, 9, 14, 15, 21])
@pytest.mark.parametrize("name", LINEAR)
def test_batch_normalization_goes_into(
    make_model: Make, checked_fuse: Fuse, name: str, opset: int
) -> None:
    declared, body, channels, weights, left = LINEAR[name]
    model = make_model(
        f"g (float[N,4,8,8] x, {declared}, {NORM.replace('C', str(channels))}) => "
        f"(float[N,{channels},H,W] y)"
        f"{{ {body} z = BatchNormalization <epsilon = 0.01> (h, g, b, m, v) y = Relu(z) }}",
        opset=opset,
        **weights,
        **norm(channels),
    )
    fused = checked_fuse(model)
    assert fused.operators == {left: 1, "Relu": 1}


@pytest.mark.parametrize("name", FLAT)
def test_batch_normalization_goes_into_flat(
    make_model: Make, checked_fuse: Fuse, name: str
) -> None:
    declared, body, weights = FLAT[name]
    model = make_model(
        f"g (float[N,5] x, {declared}, {NORM.replace('C', '6')}) => (float[N,6] y)"
        f"{{ {body} y = BatchNormalization(h, g, b, m, v) }}",
        **weights,
        **norm(6),
    )
    fused = checked_fuse(model)
    assert fused.operators == {"Gemm": 1}
    assert fused.model.graph.outputs[0].name == "y"


ARITHMETIC = {
    "z = Mul(h, k)": rand(6, 1, 1),
    "z = Mul(k, h)": rand(1, 6, 1, 1),
    "z = Div(h, k)": np.full((), 6, np.float32),
    "z = Add(h, k)": rand(6, 1, 1),
    "z = Sub(h, k)": rand(1),
    "z = Sub(k, h)": rand(6, 1, 1),
}


@pytest.mark.parametrize("body", ARITHMETIC)
def test_channel_arithmetic_goes_into_the_weights(
    make_model: Make, checked_fuse: Fuse, body: str
) -> None:
    constant = ARITHMETIC[body]
    shape = ",".join(str(size) for size in constant.shape)
    model = make_model(
        f"g (float[N,4,8,8] x, float[6,4,3,3] w, float[{shape}] k) => (float[N,6,6,6] y)"
        f"{{ h = Conv(x, w) {body} y = Relu(z) }}",
        w=rand(6, 4, 3, 3),
        k=constant,
    )
    assert checked_fuse(model).operators == {"Conv": 1, "Relu": 1}


def test_a_shift_leaves_the_weights_alone(make_model: Make, checked_fuse: Fuse) -> None:
    weight = rand(6, 4, 3, 3)
    model = make_model(
        "g (float[N,4,8,8] x, float[6,4,3,3] w, float[6,1,1] k) => (float[N,6,6,6] y)"
        "{ h = Conv(x, w) y = Add(h, k) }",
        w=weight,
        k=rand(6, 1, 1),
    )
    fused = checked_fuse(model).model.graph.initializers["w"].const_value.numpy()
    assert np.array_equal(fused, weight)


LEFT_ALONE = {
    "y = Div(k, h)": (rand(6, 1, 1) + 3, ""),
    "y = Mul(h, k) ": (rand(6, 6), "not one number for each channel"),
    "y = Mul(h, k)  ": (rand(1, 1, 6, 1), "not one number for each channel"),
    "y = Add(h, k)": (rand(1, 1, 1, 1, 1), "enlarges"),
    "z = Mul(h, k) y = Add(z, h)": (rand(1), "Conv before it is used elsewhere"),
    "q = Relu(h) z = Mul(h, k) y = Add(z, q)": (rand(1), "used elsewhere"),
}


@pytest.mark.parametrize("body", LEFT_ALONE)
def test_arithmetic_that_stays_and_why(make_model: Make, checked_fuse: Fuse, body: str) -> None:
    constant, reason = LEFT_ALONE[body]
    shape = ",".join(str(size) for size in constant.shape)
    rank = "M,N,6,6,6" if constant.ndim == 5 else "N,6,6,6"
    model = make_model(
        f"g (float[N,4,8,8] x, float[6,4,3,3] w, float[{shape}] k) => (float[{rank}] y)"
        f"{{ h = Conv(x, w) {body} }}",
        w=rand(6, 4, 3, 3),
        k=constant,
    )
    fused = checked_fuse(model)
    assert reason in fused.reasons
    assert fused.operators == {node.op_type: 1 for node in model.graph}


def test_overflowing_weights_are_left_alone(make_model: Make) -> None:
    model = make_model(
        "g (float16[N,4,8,8] x, float16[2,4,1,1] w, float16 k, float16 j) => (float16[N,2,8,8] y)"
        "{ h = Conv(x, w) i = Mul(h, k) y = Mul(i, j) }",
        w=np.full((2, 4, 1, 1), 1e-3, np.float16),
        k=np.array(6e4, np.float16),
        j=np.array(6e4, np.float16),
    )
    fused, report = fuse(model)
    assert [skipped.why for skipped in report.skipped] == ["the fused weights would overflow"]
    assert [node.op_type for node in fused.graph] == ["Conv", "Mul"]


def test_shared_weights_are_copied_not_changed(make_model: Make, checked_fuse: Fuse) -> None:
    weight, bias = rand(4, 4, 3, 3), rand(4)
    model = make_model(
        "g (float[N,4,8,8] x, float[4,4,3,3] w, float[4] c, float[4] g, float[4] b, float[4] m,"
        " float[4] v) => (float[N,4,4,4] y, float[N,4,6,6] z)"
        "{ h = Conv(x, w, c) n = BatchNormalization(h, g, b, m, v) r = Relu(n)"
        "  y = Conv(r, w, c) z = Neg(r) }",
        w=weight,
        c=bias,
        **norm(4),
    )
    fused = checked_fuse(model)
    assert fused.operators == {"Conv": 2, "Relu": 1, "Neg": 1}
    assert np.array_equal(fused.model.graph.initializers["w"].const_value.numpy(), weight)
    assert np.array_equal(fused.model.graph.initializers["c"].const_value.numpy(), bias)


NOT_FUSED = {
    "the weights are an input": (
        "float[6,4,3,3] w",
        "h = Conv(x, w) y = BatchNormalization(h, g, b, m, v)",
        "not constant",
        {},
    ),
    "the convolution is read twice": (
        "float[6,4,3,3] u",
        "h = Conv(x, u) n = BatchNormalization(h, g, b, m, v) y = Add(n, h)",
        "used elsewhere",
        {"u": rand(6, 4, 3, 3)},
    ),
    "the weights are quantised": (
        "int8[6,4,3,3] u, float s, int8 z",
        "w = DequantizeLinear(u, s, z) h = Conv(x, w) y = BatchNormalization(h, g, b, m, v)",
        "DequantizeLinear makes them",
        {
            "u": RNG.integers(-9, 9, (6, 4, 3, 3)).astype(np.int8),
            "s": np.float32(0.1),
            "z": np.int8(0),
        },
    ),
}


@pytest.mark.parametrize("name", NOT_FUSED)
def test_normalization_stays_where(make_model: Make, checked_fuse: Fuse, name: str) -> None:
    declared, body, reason, weights = NOT_FUSED[name]
    model = make_model(
        f"g (float[N,4,8,8] x, {declared}, {NORM.replace('C', '6')}) => (float[N,6,6,6] y)"
        f"{{ {body} }}",
        **{key: np.asarray(value) for key, value in weights.items()},
        **norm(6),
    )
    fused = checked_fuse(model)
    assert fused.operators["BatchNormalization"] == 1
    assert reason in fused.reasons


def test_normalization_in_training_mode_stays(make_model: Make) -> None:
    model = make_model(
        f"g (float[N,4,8,8] x, float[6,4,3,3] w, {NORM.replace('C', '6')}) => (float[N,6,6,6] y)"
        "{ h = Conv(x, w) y, p, q = BatchNormalization <training_mode = 1> (h, g, b, m, v) }",
        opset=15,
        w=rand(6, 4, 3, 3),
        **norm(6),
    )
    fused, report = fuse(model)
    assert "it is in training mode" in {skipped.why for skipped in report.skipped}
    assert fused.graph.node(1).op_type == "BatchNormalization"


def test_weights_from_outside_a_branch_are_copied_into_it(
    make_model: Make, checked_fuse: Fuse
) -> None:
    weight = rand(6, 4, 3, 3)
    model = make_model(
        f"""g (float[N,4,8,8] x, bool c, float[6,4,3,3] w, {NORM.replace("C", "6")})
        => (float[N,6,6,6] y)
        {{ y = If (c) <
             then_branch = a () => (float[N,6,6,6] t)
               {{ h = Conv(x, w) t = BatchNormalization(h, g, b, m, v) }},
             else_branch = d () => (float[N,6,6,6] e) {{ i = Conv(x, w) e = Relu(i) }}> }}""",
        w=weight,
        **norm(6),
    )
    fused = checked_fuse(model)
    assert fused.operators == {"If": 1, "Conv": 2, "Relu": 1}
    assert np.array_equal(fused.model.graph.initializers["w"].const_value.numpy(), weight)


def test_half_precision_is_fused_within_its_own_rounding(make_model: Make) -> None:
    half = {name: value.astype(np.float16) for name, value in norm(6).items()}
    model = make_model(
        "g (float16[N,4,8,8] x, float16[6,4,3,3] w, float16[6] g, float16[6] b, float16[6] m,"
        " float16[6] v) => (float16[N,6,6,6] y)"
        "{ h = Conv(x, w) y = BatchNormalization(h, g, b, m, v) }",
        w=rand(6, 4, 3, 3).astype(np.float16),
        **half,
    )
    fused, report = fuse(model)
    assert [node.op_type for node in fused.graph] == ["Conv"]
    assert 0 < (report.max_relative_difference or 0) < 8 * 2**-10


def test_a_wrong_fusion_is_caught_and_gives_nothing(
    make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = batchnorm.read_batch_normalization

    def wrong(node: ir.Node) -> ChannelAffine | str:
        affine = right(node)
        assert isinstance(affine, ChannelAffine)
        return ChannelAffine(affine.scale * 1.001, affine.shift)

    monkeypatch.setattr(batchnorm, "read_batch_normalization", wrong)
    model = make_model(
        f"g (float[N,4,8,8] x, float[6,4,3,3] w, {NORM.replace('C', '6')}) => (float[N,6,6,6] y)"
        "{ h = Conv(x, w) y = BatchNormalization(h, g, b, m, v) }",
        w=rand(6, 4, 3, 3),
        **norm(6),
    )
    with pytest.raises(TransformError, match=r"output 'y' by .* more than 0\.0001"):
        fuse(model)
