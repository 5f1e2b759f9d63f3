"""Nodes that give back their input go; those that only look like it stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.fuse import fuse

Make = Callable[..., ir.Model]
Fuse = Callable[[ir.Model], Any]


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


# Body from x to z, operator set, weights by name.
GONE: dict[str, tuple[str, int, dict[str, np.ndarray]]] = {
    "identity": ("z = Identity(x)", 17, {}),
    "dropout 7": ("z = Dropout <ratio = 0.3> (x)", 7, {}),
    "dropout 13": ("z = Dropout(x, r)", 13, {"r": np.array(0.3, np.float32)}),
    "dropout 13 off": (
        "z = Dropout(x, r, t)",
        13,
        {"r": np.array(0.3, np.float32), "t": np.array(False)},
    ),
    "cast": ("z = Cast <to = 1> (x)", 17, {}),
    "transpose": ("z = Transpose <perm = [0, 1, 2, 3]> (x)", 17, {}),
    "reshape": ("z = Reshape(x, s)", 17, {"s": ints(-1, 4, 6, 6)}),
    "reshape copies": ("z = Reshape(x, s)", 17, {"s": ints(0, 0, -1, 6)}),
    "pad 7": ("z = Pad <pads = [0, 0, 0, 0, 0, 0, 0, 0]> (x)", 7, {}),
    "pad 18": ("z = Pad(x, p)", 18, {"p": ints(0, 0, 0, 0, 0, 0, 0, 0)}),
    "concat": ("z = Concat <axis = 1> (x)", 17, {}),
    "sum": ("z = Sum(x)", 17, {}),
    "mean": ("z = Mean(x)", 17, {}),
    "max": ("z = Max(x)", 17, {}),
    "expand": ("z = Expand(x, s)", 17, {"s": ints(4, 1, 6)}),
    "slice 9": ("z = Slice <axes = [1, 3], starts = [0, 0], ends = [4, 9999999999]> (x)", 9, {}),
    "slice 13": (
        "z = Slice(x, a, b, c)",
        13,
        {"a": ints(0, 0), "b": ints(4, 2**62), "c": ints(1, 3)},
    ),
    "add": ("z = Add(k, x)", 17, {"k": floats(0)}),
    "sub": ("z = Sub(x, k)", 17, {"k": np.zeros((4, 1, 1), np.float32)}),
    "mul": ("z = Mul(x, k)", 17, {"k": np.ones((), np.float32)}),
    "div": ("z = Div(x, k)", 17, {"k": floats(1)}),
    "pow": ("z = Pow(x, k)", 17, {"k": floats(1)}),
    "upsample": ("z = Upsample(x, k)", 9, {"k": floats(1, 1, 1, 1)}),
    "resize": ('z = Resize <mode = "nearest"> (x, , k)', 13, {"k": floats(1, 1, 1, 1)}),
}
STAYS: dict[str, tuple[str, int, dict[str, np.ndarray]]] = {
    "cast": ("i = Cast <to = 6> (x) z = Cast <to = 1> (i)", 17, {}),
    "transpose": ("z = Transpose <perm = [0, 1, 3, 2]> (x)", 17, {}),
    "reshape": ("z = Reshape(x, s)", 17, {"s": ints(-1, 6, 4, 6)}),
    "reshape of free dimensions": ("z = Reshape(x, s)", 17, {"s": ints(-1, 4, 36, 1)}),
    "pad": ("z = Pad(x, p)", 17, {"p": ints(0, 0, 0, 0, 0, 0, 1, 0)}),
    "expand": ("z = Expand(x, s)", 17, {"s": ints(2, 1, 1, 1, 1)}),
    "slice": ("z = Slice(x, a, b, c)", 17, {"a": ints(0), "b": ints(3), "c": ints(1)}),
    "slice backwards": (
        "z = Slice(x, a, b, c, d)",
        17,
        {"a": ints(-1), "b": ints(-99), "c": ints(3), "d": ints(-1)},
    ),
    "add enlarges": ("z = Add(x, k)", 17, {"k": np.zeros((2, 1, 1, 1, 1), np.float32)}),
    "sub from zero": ("z = Sub(k, x)", 17, {"k": floats(0)}),
    "division of one": ("z = Div(k, x)", 17, {"k": floats(1)}),
    "resize": ('z = Resize <mode = "nearest"> (x, , k)', 13, {"k": floats(1, 1, 2, 1)}),
}

_TYPES = {"float32": "float", "int64": "int64", "bool": "bool"}


def model_of(make_model: Make, body: str, opset: int, weights: dict[str, np.ndarray]) -> ir.Model:
    declared = "".join(f", {declaration(name, w)}" for name, w in weights.items())
    grows = any(w.ndim == 5 or w.shape == (5,) for w in weights.values())
    return make_model(
        f"g (float[N,4,6,6] x{declared}) => (float[{'M,' if grows else ''}A,B,C,D] y)"
        f"{{ {body} y = Relu(z) }}",
        opset=opset,
        **weights,
    )


def declaration(name: str, weight: np.ndarray) -> str:
    shape = f"[{','.join(map(str, weight.shape))}]" if weight.ndim else ""
    return f"{_TYPES[weight.dtype.name]}{shape} {name}"


@pytest.mark.parametrize("name", GONE)
def test_goes(make_model: Make, checked_fuse: Fuse, name: str) -> None:
    fused = checked_fuse(model_of(make_model, *GONE[name]))
    assert fused.operators == {"Relu": 1}
    assert fused.steps["no-ops"] == 1


@pytest.mark.parametrize("name", STAYS)
def test_stays(make_model: Make, checked_fuse: Fuse, name: str) -> None:
    model = model_of(make_model, *STAYS[name])
    assert len(checked_fuse(model).model.graph) == len(model.graph)


def test_a_dropout_that_may_train_stays_and_says_so(make_model: Make) -> None:
    model = make_model(
        "g (float[N,4] x, float r, bool t) => (float[N,4] y) { z = Dropout(x, r, t) y = Relu(z) }",
        r=np.array(0.0, np.float32),
    )
    _, report = fuse(model)
    assert "it may be in training mode" in {skipped.why for skipped in report.skipped}


def test_a_dropout_whose_mask_is_used_stays(make_model: Make, checked_fuse: Fuse) -> None:
    model = make_model(
        "g (float[N,4] x) => (float[N,4] y, bool[N,4] k) { z, k = Dropout(x) y = Relu(z) }"
    )
    assert "its mask is used" in checked_fuse(model).reasons


def test_outputs_keep_their_names(make_model: Make, checked_fuse: Fuse) -> None:
    model = make_model(
        """g (float[N,4] x) => (float[N,4] a, float[N,4] b, float[N,4] same, float[N,4] through)
        { r = Relu(x) a = Identity(r) n = Neg(a) b = Dropout(n)
          same = Identity(a) through = Identity(x) }"""
    )
    fused = checked_fuse(model)
    assert [value.name for value in fused.model.graph.outputs] == ["a", "b", "same", "through"]
    assert fused.operators == {"Relu": 1, "Neg": 1, "Identity": 2}


def test_a_branch_that_passes_an_outer_value_keeps_its_identity(
    make_model: Make, checked_fuse: Fuse
) -> None:
    model = make_model(
        """g (float[2,4] x, bool c) => (float[2,4] y)
        { r = Relu(x)
          y = If (c) <then_branch = a () => (float[2,4] t) { t = Identity(r) },
                      else_branch = b () => (float[2,4] e) { d = Dropout(r) e = Neg(d) }> }"""
    )
    fused = checked_fuse(model)
    assert fused.operators == {"Relu": 1, "If": 1, "Identity": 1, "Neg": 1}
