"""Fusions of structure: pads, chains, Gemm, common subexpressions, constants, branches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import TransformError
from trimton.transforms.fuse import fuse, fusion
from trimton.transforms.fuse.family import Family, at_nodes
from trimton.transforms.graph.edit import Editor, erase, replace_value

Make = Callable[..., ir.Model]
Fuse = Callable[[ir.Model], Any]
RNG = np.random.default_rng(0)
LOWEST = float(np.finfo(np.float32).min)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def rand(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


PADS = ints(0, 0, 1, 0, 0, 0, 2, 1)
POOLS = "kernel_shape = [3, 3]"


@pytest.mark.parametrize(
    ("body", "value", "left", "reason"),
    [
        ("y = Conv(z, w)", 0.0, 1, ""),
        ("y = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (z, w)", 0.0, 1, ""),
        ('y = Conv <auto_pad = "VALID"> (z, w)', 0.0, 1, ""),
        ('y = Conv <auto_pad = "SAME_UPPER"> (z, w)', 0.0, 2, "pads by itself (SAME_UPPER)"),
        ("y = Conv(z, w)", 1.0, 2, "pads with 1, and Conv with 0"),
        (f"y = AveragePool <{POOLS}> (z)", 0.0, 1, ""),
        (f"y = AveragePool <{POOLS}, count_include_pad = 1> (z)", 0.0, 1, ""),
        (f"y = AveragePool <{POOLS}, pads = [1, 1, 1, 1]> (z)", 0.0, 2, "out of the average"),
        (f"y = AveragePool <{POOLS}, ceil_mode = 1> (z)", 0.0, 2, "rounds its size up"),
        ("y = AveragePool <kernel_shape = [2, 2]> (z)", 0.0, 2, "as much as the window"),
        (f"y = MaxPool <{POOLS}> (z)", LOWEST, 1, ""),
        (f"y = MaxPool <{POOLS}> (z)", 0.0, 2, "can win"),
    ],
)
@pytest.mark.parametrize("opset", [9, 13, 18])
def test_pads(
    make_model: Make,
    checked_fuse: Fuse,
    opset: int,
    body: str,
    value: float,
    left: int,
    reason: str,
) -> None:
    if "ceil_mode" in body and opset < 10:
        body, reason = body.replace(", ceil_mode = 1", ""), ""
        left = 1
    weights = {"w": rand(5, 4, 3, 3)}
    if opset < 11:
        pad = f"z = Pad <pads = {PADS.tolist()}, value = {value!r}> (x)"
        declared = ""
    else:
        pad, declared = "z = Pad(x, p, v)", ", int64[8] p, float v"
        weights |= {"p": PADS, "v": np.array(value, np.float32)}
    model = make_model(
        f"g (float[N,4,8,8] x, float[5,4,3,3] w{declared}) => (float[N,C,H,W] y){{ {pad} {body} }}",
        opset=opset,
        **weights,
    )
    fused = checked_fuse(model)
    assert len(fused.model.graph) == left
    assert reason in fused.reasons


@pytest.mark.parametrize(
    ("pad", "weights", "reason"),
    [
        ('z = Pad <mode = "reflect"> (x, p)', {"p": PADS}, "its mode is reflect"),
        ("z = Pad(x, p)", {"p": ints(0, 0, -1, 0, 0, 0, 0, 0)}, "it crops"),
        ("z = Pad(x, p)", {"p": ints(1, 0, 0, 0, 0, 0, 0, 0)}, "pads the batch"),
        ("z = Pad(x, p)", {}, "how much it pads is not constant"),
        ("z = Pad(x, q, v)", {"q": PADS}, "what it pads with is not constant"),
    ],
)
def test_pads_that_stay(
    make_model: Make, pad: str, weights: dict[str, np.ndarray], reason: str
) -> None:
    name = "q" if "q" in weights else "p"
    extra = ", float v" if "v)" in pad else ""
    model = make_model(
        f"g (float[N,4,8,8] x, float[5,4,3,3] w, int64[8] {name}{extra}) => (float[M,5,H,W] y)"
        f"{{ {pad} y = Conv(z, w) }}",
        w=rand(5, 4, 3, 3),
        **weights,
    )
    fused, report = fuse(model)
    assert reason in "; ".join(skipped.why for skipped in report.skipped)
    assert len(fused.graph) == 2


def test_a_pad_of_some_axes_goes_into_all_its_readers(make_model: Make, checked_fuse: Fuse) -> None:
    model = make_model(
        """g (float[N,4,8,8] x, float[5,4,3,3] w, int64[4] p, int64[2] a)
        => (float[N,5,H,W] y, float[N,5,H,W] q)
        { z = Pad(x, p, , a) y = Conv(z, w) n = Conv <strides = [2, 2]> (z, w) q = Relu(n) }""",
        opset=18,
        w=rand(5, 4, 3, 3),
        p=ints(1, 0, 0, 2),
        a=ints(-1, 2),
    )
    assert checked_fuse(model).operators == {"Conv": 2, "Relu": 1}


# Name: (body, rank of the output, operators left)
CHAINS = {
    "transposes": (
        "a = Transpose <perm = [1, 2, 0]> (x) y = Transpose <perm = [2, 1, 0]> (a)",
        3,
        {"Transpose": 1},
    ),
    "transposes that cancel": (
        "a = Transpose <perm = [1, 2, 0]> (x) b = Transpose <perm = [2, 0, 1]> (a) y = Relu(b)",
        3,
        {"Relu": 1},
    ),
    "transposes without axes": (
        "a = Transpose(x) b = Transpose(a) y = Relu(b)",
        3,
        {"Relu": 1},
    ),
    "three transposes": (
        """a = Transpose <perm = [1, 2, 0]> (x) b = Transpose <perm = [1, 2, 0]> (a)
        c = Transpose <perm = [1, 2, 0]> (b) y = Relu(c)""",
        3,
        {"Relu": 1},
    ),
    "transpose read twice": (
        """a = Transpose <perm = [1, 2, 0]> (x) b = Transpose <perm = [2, 0, 1]> (a)
        c = Add(b, x) d = Transpose <perm = [2, 0, 1]> (a) y = Mul(c, d)""",
        3,
        {"Add": 1, "Mul": 1},
    ),
    "reshapes": ("a = Reshape(x, flat) y = Reshape(a, four)", 4, {"Reshape": 1}),
    "flatten": ("a = Flatten(x) y = Reshape(a, four)", 4, {"Reshape": 1}),
    "unsqueeze": ("a = Unsqueeze(x, axis) y = Reshape(a, four)", 4, {"Reshape": 1}),
    "copied known dimension": (
        "a = Reshape(x, flat) y = Reshape(a, copying)",
        3,
        {"Reshape": 1},
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains(make_model: Make, checked_fuse: Fuse, name: str) -> None:
    body, rank, expected = CHAINS[name]
    model = make_model(
        f"""g (float[N,4,6] x, int64[2] flat, int64[4] four, int64[3] copying, int64[1] axis)
        => (float[{",".join("ABCD"[:rank])}] y) {{ {body} }}""",
        flat=ints(-1, 12),
        four=ints(-1, 2, 3, 2),
        copying=ints(-1, 0, 1),
        axis=ints(1),
    )
    assert checked_fuse(model).operators == expected


def test_a_reshape_that_copies_a_free_dimension_stays(make_model: Make) -> None:
    model = make_model(
        "g (float[N,4,M] x, int64[2] s, int64[3] t) => (float[A,B,C] y)"
        "{ a = Reshape(x, s) y = Reshape(a, t) }",
        s=ints(4, -1),
        t=ints(-1, 0, 1),
    )
    fused, report = fuse(model)
    assert "copies a free dimension" in report.skipped[0].why
    assert len(fused.graph) == 2


def test_matmul_and_add_become_gemm_only_in_two_dimensions(
    make_model: Make, checked_fuse: Fuse
) -> None:
    text = "=> (float[{0}6] y) {{ p = MatMul(x, w) y = Add(p, b) }}"
    weights = {"w": rand(5, 6), "b": rand(6)}
    flat = make_model("g (float[N,5] x, float[5,6] w, float[6] b)" + text.format("N,"), **weights)
    deep = make_model(
        "g (float[N,3,5] x, float[5,6] w, float[6] b)" + text.format("N,3,"), **weights
    )
    assert checked_fuse(flat).operators == {"Gemm": 1}
    assert checked_fuse(deep).operators == {"MatMul": 1, "Add": 1}


def test_a_bias_that_enlarges_the_product_stays(make_model: Make, checked_fuse: Fuse) -> None:
    model = make_model(
        "g (float[1,5] x, float[5,6] w, float[3,6] b) => (float[3,6] y)"
        "{ p = MatMul(x, w) y = Add(p, b) }",
        w=rand(5, 6),
        b=rand(3, 6),
    )
    fused = checked_fuse(model)
    assert fused.operators == {"MatMul": 1, "Add": 1}
    assert "no row of the product's width" in fused.reasons


def test_common_subexpressions_are_computed_once_across_graphs(
    make_model: Make, checked_fuse: Fuse
) -> None:
    weight = rand(3, 3)
    model = make_model(
        """g (float[2,3] x, bool c, float[3,3] w, float[3,3] v) => (float[2,3] y, float[2,3] z)
        { a = MatMul(x, w) b = MatMul(x, v) s = Exp(a) t = Exp(b) z = Add(s, t)
          y = If (c) <then_branch = p () => (float[2,3] o) { i = MatMul(x, v) o = Sin(i) },
                      else_branch = q () => (float[2,3] e) { j = MatMul(x, w) e = Cos(j) }> }""",
        w=weight,
        v=weight.copy(),
    )
    fused = checked_fuse(model)
    assert fused.operators == {"MatMul": 1, "Exp": 1, "Add": 1, "If": 1, "Sin": 1, "Cos": 1}
    assert len(fused.model.graph.initializers) == 1


def test_what_differs_is_computed_twice(make_model: Make, checked_fuse: Fuse) -> None:
    model = make_model(
        """g (float[N,4] x, float[4] k, int64[4] i) => (float[N,4] y)
        { a = Softmax <axis = 0> (x) b = Softmax <axis = 1> (x) s = Add(a, b)
          f = Cast <to = 1> (i) t = Mul(s, f) y = Mul(t, k) }""",
        k=np.array([1, 2, 3, 4], np.float32),
        i=ints(2, 2, 3, 4),
    )
    assert checked_fuse(model).operators == {"Softmax": 2, "Add": 1, "Mul": 2}


def test_equal_outputs_are_both_kept(make_model: Make, checked_fuse: Fuse) -> None:
    model = make_model("g (float[N] x) => (float[N] a, float[N] b) { a = Exp(x) b = Exp(x) }")
    fused = checked_fuse(model)
    assert [value.name for value in fused.model.graph.outputs] == ["a", "b"]
    assert "both are outputs" in fused.reasons


def test_random_nodes_are_not_merged_and_not_folded(make_model: Make) -> None:
    model = make_model(
        """g (float[N] x, float[9] k) => (float[9] y)
        { a = RandomNormalLike(k) b = RandomNormalLike(k) y = Sub(a, b) }""",
        k=rand(9),
    )
    fused, report = fuse(model)
    assert len(fused.graph) == 3
    assert report.max_relative_difference is None
    assert "RandomNormalLike (n0) is random" in "; ".join(s.why for s in report.skipped)


def test_constants_are_folded_shapes_included(make_model: Make, checked_fuse: Fuse) -> None:
    model = make_model(
        """g (float[N,4,6] x, float[6,3] w, int64[1] one, int64[1] rest, int64[1] i) =>
        (float[N,C] y)
        { v = Transpose(w) k = Mul(v, v) kt = Transpose(k)
          s = Shape(x) d = Gather(s, i) m = Mul(d, one) t = Concat <axis = 0> (rest, m)
          f = Reshape(x, t) a = ReduceSum <keepdims = 0> (f, one) b = Unsqueeze(a, one)
          y = Mul(b, b) }""",
        w=rand(6, 3),
        one=ints(1),
        rest=ints(-1),
        i=ints(2),
    )
    assert checked_fuse(model).operators == {
        "Reshape": 1, "ReduceSum": 1, "Unsqueeze": 1, "Mul": 1,
    }  # fmt: skip


def test_folding_never_blows_the_model_up(make_model: Make, checked_fuse: Fuse) -> None:
    model = make_model(
        """g (float[N,512] x, float k, int64[2] s) => (float[512,512] y)
        { e = Expand(k, s) r = ReduceMean <axes = [0]> (x) y = Add(e, r) }""",
        k=np.array(3, np.float32),
        s=ints(512, 512),
    )
    fused = checked_fuse(model)
    assert fused.operators["Expand"] == 1
    assert "would make the model 1048556 bytes larger" in fused.reasons


def test_parts_of_a_weight_are_folded_into_the_next(make_model: Make, checked_fuse: Fuse) -> None:
    model = make_model(
        """g (float[N,128] x, float[128,128] w, int64[1] o, int64[1] h, int64[1] e, int64[1] a)
        => (float[N,128] y)
        { p = Slice(w, o, h, a) q = Slice(w, h, e, a) v = Concat <axis = 0> (q, p)
          y = MatMul(x, v) }""",
        w=rand(128, 128),
        o=ints(0),
        h=ints(64),
        e=ints(128),
        a=ints(0),
    )
    fused = checked_fuse(model)
    assert fused.operators == {"MatMul": 1}
    assert fused.report.after.parameters == 128 * 128


def test_the_branch_always_taken_replaces_its_if(make_model: Make, checked_fuse: Fuse) -> None:
    model = make_model(
        """g (float[2,3] x, bool c, bool yes, int64 rank) => (float[2,3] y, float[2,3] z)
        { s = Shape(x) n = Size(s) is_flat = Equal(n, rank)
          y = If (is_flat) <then_branch = a () => (float[2,3] o) { i = Exp(x) o = Sin(i) },
                            else_branch = b () => (float[2,3] e) { e = Neg(x) }>
          z = If (yes) <
            then_branch = p () => (float[2,3] o) {
              o = If (c) <then_branch = q () => (float[2,3] i) { i = Cos(x) },
                          else_branch = r () => (float[2,3] j) { j = Tan(x) }> },
            else_branch = d () => (float[2,3] k) { k = Abs(x) }> }""",
        yes=np.array(True),
        rank=np.array(2),
    )
    fused = checked_fuse(model)
    assert fused.operators == {"Exp": 1, "Sin": 1, "If": 1, "Cos": 1, "Tan": 1}
    assert fused.steps["branches"] == 2


def test_what_grows_in_a_loop_has_no_constant_shape(make_model: Make, checked_fuse: Fuse) -> None:
    """The body declares one element, as an exporter may that saw a single iteration."""
    model = make_model(
        """g (float[1] x, int64 trips, bool go, int64[1] axis) => (float[N] y)
        { e = Exp(x)
          y = Loop (trips, go, e) <body = b (int64 i, bool on, float[1] s) => (bool off, float[M] t)
            { off = Identity(on) n = Size(s) f = Cast <to = 1> (n) k = Unsqueeze(f, axis)
              t = Concat <axis = 0> (s, k) }> }""",
        trips=np.array(3),
        go=np.array(True),
        axis=ints(0),
    )
    fused = checked_fuse(model)
    assert fused.operators["Size"] == 1
    body = next(graph for graph in fused.model.graphs() if graph is not fused.model.graph)
    assert [str(value.shape) for value in body.inputs] == ["[]", "[]", "[1]"]


def test_a_wrongly_declared_output_is_not_believed(make_model: Make, checked_fuse: Fuse) -> None:
    model = make_model(
        """g (float[N,4] x) => (float[1,4] y, float[M] z)
        { y = Exp(x) s = Shape(y) f = Cast <to = 1> (s) z = Neg(f) }"""
    )
    fused = checked_fuse(model)
    assert fused.operators["Shape"] == 1


def test_dead_code_goes_in_every_graph(make_model: Make, checked_fuse: Fuse) -> None:
    model = make_model(
        """g (float[2,3] x, bool c, float[3] w, float[3] unused) => (float[2,3] y)
        { dead = Exp(x) deader = Sin(dead)
          y = If (c) <then_branch = a () => (float[2,3] t) { d = Exp(x) t = Add(x, w) },
                      else_branch = b () => (float[2,3] e) { f = Tan(x) e = Neg(x) }> }""",
        w=rand(3),
        unused=rand(3),
    )
    fused = checked_fuse(model)
    assert fused.operators == {"If": 1, "Add": 1, "Neg": 1}
    assert list(fused.model.graph.initializers) == ["w"]


def test_quantised_regions_are_left_alone(make_model: Make, checked_fuse: Fuse) -> None:
    model = make_model(
        """g (float[N,4] x, int8[4,3] w, float s, int8 z, float t, uint8 q) => (float[N,3] y)
        { xq = QuantizeLinear(x, t, q) xd = DequantizeLinear(xq, t, q)
          wd = DequantizeLinear(w, s, z) m = MatMul(xd, wd) i = Identity(m)
          mq = QuantizeLinear(i, t, q) a = DequantizeLinear(mq, t, q)
          b = DequantizeLinear(mq, t, q) e = Exp(a) y = Add(e, b) }""",
        w=RNG.integers(-99, 99, (4, 3)).astype(np.int8),
        s=np.array(0.01, np.float32),
        z=np.array(0, np.int8),
        t=np.array(0.05, np.float32),
        q=np.array(128, np.uint8),
    )
    fused = checked_fuse(model)
    before = [node.op_type for node in model.graph if node.op_type != "Identity"]
    assert [node.op_type for node in fused.model.graph] == before
    assert fused.model.graph.initializers["w"].dtype == ir.DataType.INT8


def test_operators_outside_the_standard_are_kept(make_model: Make, checked_fuse: Fuse) -> None:
    model = make_model(
        """g (float[N,4] x) => (float[N,4] y)
        { a = com.microsoft.Gelu(x) b = com.microsoft.Gelu(a) i = Identity(b)
          y = com.microsoft.QuickGelu(i) }""",
        domains=', "com.microsoft" : 1',
    )
    assert checked_fuse(model).operators == {"Gelu": 2, "QuickGelu": 1}


def test_what_cannot_be_run_is_fused_without_proof_and_says_so(make_model: Make) -> None:
    model = make_model(
        "g (float[N,4] x) => (float[N,4] y) { i = Identity(x) y = their.domain.Magic(i) }",
        domains=', "their.domain" : 1',
    )
    fused, report = fuse(model)
    assert [node.op_type for node in fused.graph] == ["Magic"]
    assert report.max_relative_difference is None
    assert report.skipped[-1].what == "proof of equality"
    assert "their.domain::Magic" in report.skipped[-1].why


def test_nothing_to_do_says_so(make_model: Make, checked_fuse: Fuse) -> None:
    fused = checked_fuse(make_model("g (float[N] x) => (float[N] y) { y = Relu(x) }"))
    assert not fused.report.changed
    assert fused.report.steps == ()
    assert fused.report.before == fused.report.after


def test_given_data_takes_part_in_the_proof(
    make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fusion that is wrong only far from 0 passes random probes, but not the user's data."""

    def forget_clip(node: ir.Node, editor: Editor) -> bool:
        replace_value(node.outputs[0], node.inputs[0])
        erase(node)
        return True

    family = Family("wrong", "wrong", at_nodes("Clip", rule=forget_clip))
    monkeypatch.setattr(fusion, "FAMILIES", (family,))
    model = make_model(
        "g (float[N,4] x, float low, float high) => (float[N,4] y)"
        "{ r = Relu(x) c = Clip(r, low, high) y = Neg(c) }",
        low=np.array(0, np.float32),
        high=np.array(99, np.float32),
    )
    _, report = fuse(model)
    assert report.changed
    with pytest.raises(TransformError, match="output 'y'"):
        fuse(model, probes={"x": np.full((3, 4), 200, np.float32)})
