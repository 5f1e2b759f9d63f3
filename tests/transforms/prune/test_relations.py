"""What each relation ties, on the smallest graphs that show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.prune import PruneSettings, prunable, prune

ModelMaker = Callable[..., ir.Model]
RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def numbers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def groups(model: ir.Model) -> list[tuple[int, int]]:
    """(channels, how many go at once) of every group, largest first."""
    return sorted(((g.channels, g.width) for g in prunable(model).groups), reverse=True)


def reasons(model: ir.Model) -> dict[str, str]:
    return {layer.name: layer.why for layer in prunable(model).frozen}


def test_a_depthwise_convolution_rewrites_its_groups(
    make_model: ModelMaker, checked_cut: Any
) -> None:
    cut = checked_cut(
        make_model(
            """g (float[N,3,8,8] x, float[8,3,1,1] a, float[16,1,3,3] d, float[5,16,1,1] b)
               => (float[N,5,6,6] y)
               { h = Conv(x, a) i = Conv<group=8>(h, d) y = Conv(i, b) }""",
            a=floats(8, 3, 1, 1), d=floats(16, 1, 3, 3), b=floats(5, 16, 1, 1),
        )
    )  # fmt: skip
    assert [cut.shape(name) for name in "adb"] == [(4, 3, 1, 1), (8, 1, 3, 3), (5, 8, 1, 1)]
    group = next(n for n in cut.model.graph if "group" in n.attributes).attributes["group"]
    assert group.as_int() == 4


def test_groups_of_a_convolution_keep_the_same_count(make_model: ModelMaker) -> None:
    model = make_model(
        """g (float[N,3,4,4] x, float[8,3,1,1] a, float[12,4,1,1] c, float[5,12,1,1] b)
           => (float[N,5,4,4] y)
           { h = Conv(x, a) i = Conv<group=2>(h, c) y = Conv(i, b) }""",
        a=floats(8, 3, 1, 1), c=floats(12, 4, 1, 1), b=floats(5, 12, 1, 1),
    )  # fmt: skip
    assert groups(model) == [(12, 2), (8, 2)]


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_follows_its_flags(make_model: ModelMaker, checked_cut: Any, transposed: int) -> None:
    first = floats(8, 6) if transposed else floats(6, 8)
    second = floats(3, 8) if transposed else floats(8, 3)
    cut = checked_cut(
        make_model(
            f"""g (float[N,6] x, float[{first.shape[0]},{first.shape[1]}] a, float[8] c,
                   float[{second.shape[0]},{second.shape[1]}] b) => (float[N,3] y)
                {{ h = Gemm<transB={transposed}>(x, a, c) y = Gemm<transB={transposed}>(h, b) }}""",
            a=first, b=second, c=floats(8),
        )
    )  # fmt: skip
    assert cut.shape("c") == (4,)
    assert cut.shape("a") == ((4, 6) if transposed else (6, 4))
    assert cut.shape("b") == ((3, 4) if transposed else (4, 3))


@pytest.mark.parametrize("channels_last", [False, True])
def test_flatten_cuts_whole_maps(
    make_model: ModelMaker, checked_cut: Any, channels_last: bool
) -> None:
    middle = "t = Transpose<perm=[0,2,3,1]>(h)" if channels_last else "t = Identity(h)"
    cut = checked_cut(
        make_model(
            f"""g (float[N,3,2,2] x, float[8,3,1,1] a, float[32,5] b, int64[2] s)
                => (float[N,5] y)
                {{ h = Conv(x, a) {middle} f = Reshape(t, s) y = MatMul(f, b) }}""",
            a=floats(8, 3, 1, 1), b=np.arange(160, dtype=np.float32).reshape(32, 5),
            s=numbers(-1, 32),
        )
    )  # fmt: skip
    rows = (cut.array("b")[:, 0] // 5).astype(int)
    channels = rows % 8 if channels_last else rows // 4
    assert np.unique(channels, return_counts=True)[1].tolist() == [4, 4, 4, 4]


def test_attention_loses_whole_heads(topologies: Any, checked_cut: Any) -> None:
    model = topologies.TOPOLOGIES["multi-head attention"](1.0)
    assert groups(model) == [(128, 16)]
    cut = checked_cut(model, 0.25)
    shapes = [
        cut.array(node.inputs[1].name).tolist()
        for node in cut.model.graph
        if "Reshape" in node.name
    ]
    assert shapes == [[0, 6, 6, 16]] * 3 + [[0, 6, 96]]


def test_the_contracted_axis_of_two_activations_is_kept(make_model: ModelMaker) -> None:
    model = make_model(
        """g (float[N,4,6] x, float[6,8] a, float[6,8] b, float[4,3] c) => (float[N,4,3] y)
           { p = MatMul(x, a) q = MatMul(x, b) t = Transpose<perm=[0,2,1]>(q)
             s = MatMul(p, t) y = MatMul(s, c) }""",
        a=floats(6, 8), b=floats(6, 8), c=floats(4, 3),
    )  # fmt: skip
    assert groups(model) == []
    assert "two activations are multiplied along it" in reasons(model).values()


def test_a_split_in_unequal_parts_is_rewritten(make_model: ModelMaker, checked_cut: Any) -> None:
    cut = checked_cut(
        make_model(
            """g (float[N,6] x, float[6,12] a, int64[2] s, float[4,3] b, float[8,3] c)
               => (float[N,3] y)
               { h = MatMul(x, a) l, r = Split<axis=-1>(h, s)
                 p = MatMul(l, b) q = MatMul(r, c) y = Add(p, q) }""",
            a=floats(6, 12), s=numbers(4, 8), b=floats(4, 3), c=floats(8, 3),
        )
    )  # fmt: skip
    assert cut.array("s").tolist() == [2, 4]


def test_a_split_of_an_old_operator_set_is_rewritten(
    make_model: ModelMaker, checked_cut: Any
) -> None:
    cut = checked_cut(
        make_model(
            """g (float[N,6] x, float[6,12] a, float[4,3] b, float[8,3] c) => (float[N,3] y)
               { h = MatMul(x, a) l, r = Split<axis=1, split=[4, 8]>(h)
                 p = MatMul(l, b) q = MatMul(r, c) y = Add(p, q) }""",
            opset=9, a=floats(6, 12), b=floats(4, 3), c=floats(8, 3),
        )
    )  # fmt: skip
    assert list(cut.node("Split").attributes["split"].as_ints()) == [2, 4]


def test_an_equal_split_that_becomes_unequal_gets_sizes(
    make_model: ModelMaker, checked_cut: Any
) -> None:
    cut = checked_cut(
        make_model(
            """g (float[N,6] x, float[6,12] a, float[6,3] b) => (float[N,3] y, float[N,6] z)
               { h = MatMul(x, a) l, z = Split<axis=1, num_outputs=2>(h) y = MatMul(l, b) }""",
            opset=18, a=floats(6, 12), b=floats(6, 3),
        )
    )  # fmt: skip
    assert cut.shape("a") == (6, 9)


def test_shared_weights_are_cut_alike(make_model: ModelMaker, checked_cut: Any) -> None:
    cut = checked_cut(
        make_model(
            """g (int64[N,4] x, float[40,8] table, float[8,8] a) => (float[N,4,40] y)
               { e = Gather(table, x) h = MatMul(e, a) r = Relu(h)
                 t = Transpose<perm=[1,0]>(table) y = MatMul(r, t) }""",
            table=floats(40, 8), a=floats(8, 8),
        )
    )  # fmt: skip
    assert cut.shape("table") == (40, 4)
    assert cut.shape("a") == (4, 4)


def test_embeddings_lose_columns(make_model: ModelMaker, checked_cut: Any) -> None:
    model = make_model(
        """g (int64[N,4] x, float[20,8] table, float[8,3] a) => (float[N,4,3] y)
           { e = Gather(table, x) y = MatMul(e, a) }""",
        table=floats(20, 8), a=floats(8, 3),
    )  # fmt: skip
    assert prunable(model).groups[0].layers[0] == "table"
    assert checked_cut(model).shape("table") == (20, 4)


def test_a_list_of_gathered_channels_is_renumbered(
    make_model: ModelMaker, checked_cut: Any
) -> None:
    cut = checked_cut(
        make_model(
            """g (float[N,6] x, float[6,8] a, int64[8] order, float[8,3] b) => (float[N,3] y)
               { h = MatMul(x, a) s = Gather<axis=1>(h, order) y = MatMul(s, b) }""",
            a=floats(6, 8), order=numbers(7, -2, 5, 4, 3, 2, 1, 0), b=floats(8, 3),
        )
    )  # fmt: skip
    assert cut.array("order").tolist() == [3, 2, 1, 0]


def test_a_computed_shape_gets_the_new_sizes(make_model: ModelMaker, checked_cut: Any) -> None:
    cut = checked_cut(
        make_model(
            """g (float[N,S,6] x, float[6,8] a, int64[1] heads, int64[1] depth, int64[2] rows,
                  int64[1] zero, float[8,3] b) => (float[N,S,3] y)
               { h = MatMul(x, a) f = Shape(x) n = Slice(f, zero, rows)
                 s = Concat<axis=0>(n, heads, depth) r = Reshape(h, s) t = Relu(r)
                 w = Concat<axis=0>(n, wide) m = Reshape(t, w) y = MatMul(m, b) }""".replace(
                "int64[2] rows", "int64[1] rows, int64[1] wide"
            ),
            a=floats(6, 8), heads=numbers(4), depth=numbers(2), rows=numbers(2), zero=numbers(0),
            wide=numbers(8), b=floats(8, 3),
        )
    )  # fmt: skip
    assert cut.shape("a") == (6, 4)
    assert sum(node.op_type == "Where" for node in cut.model.graph) == 2


def test_a_model_that_runs_at_few_sizes_is_followed_at_these(
    make_model: ModelMaker, checked_cut: Any
) -> None:
    """H is declared free, but only H = 1 lets the parts be concatenated."""
    cut = checked_cut(
        make_model(
            """g (float[N,H,6] x, float[6,8] a, float[1,1,8] c, int64[1] zero, int64[1] one,
                  int64[1] two, int64[1] eight, int64[1] last, float[16,3] b) => (float[N,H,3] y)
               { h = MatMul(x, a) f = Shape(h) n = Slice(f, zero, one)
                 s = Concat<axis=0>(n, one, eight) r = Expand(c, s) m = Concat<axis=2>(h, r)
                 q = Shape(m) p = Slice(q, zero, two) t = Concat<axis=0>(p, last)
                 u = Max(t, zero) v = Reshape(m, u) y = MatMul(v, b) }""",
            a=floats(6, 8), c=floats(1, 1, 8), zero=numbers(0), one=numbers(1), two=numbers(2),
            eight=numbers(8), last=numbers(16), b=floats(16, 3),
        )
    )  # fmt: skip
    assert cut.shape("b") == (8, 3)


@pytest.mark.parametrize("op_type", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("directions", [1, 2])
def test_hidden_units_leave_every_gate(
    make_model: ModelMaker, checked_cut: Any, op_type: str, directions: int
) -> None:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op_type]
    name = "bidirectional" if directions == 2 else "forward"
    d, h = directions, 8
    cut = checked_cut(
        make_model(
            f"""g (float[5,N,6] x, float[{d},{gates * h},6] w, float[{d},{gates * h},{h}] r,
                   float[{d},{2 * gates * h}] b, int64[3] s, float[{d * h},3] o)
                => (float[5,N,3] y)
                {{ q = {op_type}<hidden_size={h}, direction="{name}">(x, w, r, b)
                   t = Transpose<perm=[0,2,1,3]>(q) m = Reshape(t, s) y = MatMul(m, o) }}""",
            w=floats(d, gates * h, 6), r=floats(d, gates * h, h), b=floats(d, 2 * gates * h),
            s=numbers(5, -1, d * h), o=floats(d * h, 3),
        )
    )  # fmt: skip
    assert cut.node(op_type).attributes["hidden_size"].as_int() == 4
    assert cut.shape("r") == (d, gates * 4, 4)
    assert cut.shape("o") == (d * 4, 3)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_channels_of_depth_to_space_are_followed(
    make_model: ModelMaker, checked_cut: Any, mode: str
) -> None:
    cut = checked_cut(
        make_model(
            f"""g (float[N,3,4,4] x, float[16,3,1,1] a, float[2,4,1,1] b) => (float[N,2,8,8] y)
                {{ h = Conv(x, a) u = DepthToSpace<blocksize=2, mode="{mode}">(h)
                   y = Conv(u, b) }}""",
            a=floats(16, 3, 1, 1), b=floats(2, 4, 1, 1),
        )
    )  # fmt: skip
    assert cut.shape("a") == (8, 3, 1, 1)


def test_einsum_is_a_layer(make_model: ModelMaker, checked_cut: Any) -> None:
    cut = checked_cut(
        make_model(
            """g (float[N,4,6] x, float[6,8] a, float[3,8] b) => (float[N,4,3] y)
               { h = Einsum<equation="nsi,io->nso">(x, a)
                 y = Einsum<equation="nso,ko->nsk">(h, b) }""",
            a=floats(6, 8), b=floats(3, 8),
        )
    )  # fmt: skip
    assert cut.shape("a") == (6, 4)


def test_expanded_and_tiled_channels_are_followed(make_model: ModelMaker, checked_cut: Any) -> None:
    cut = checked_cut(
        make_model(
            """g (float[2,6] x, float[6,8] a, int64[3] s, int64[3] r, float[16,3] b)
               => (float[4,2,3] y)
               { h = MatMul(x, a) e = Expand(h, s) t = Tile(e, r) y = MatMul(t, b) }""",
            a=floats(6, 8), s=numbers(4, 2, 8), r=numbers(1, 1, 2), b=floats(16, 3),
        )
    )  # fmt: skip
    assert cut.shape("b") == (8, 3)
    assert cut.array("s").tolist() == [4, 2, 4]


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        ("h = LRN<size=3>(c)", "LRN mixes neighbouring channels"),
        ("h = Softmax<axis=1>(c)", "Softmax goes along it"),
        ("m = ReduceMean<axes=[1]>(c) s = Sigmoid(m) h = Mul(c, s)", "ReduceMean goes over it"),
        ("h = MeanVarianceNormalization<axes=[1]>(c)", "MeanVarianceNormalization has no relation"),
    ],
)
def test_what_mixes_channels_is_frozen_with_its_reason(
    make_model: ModelMaker, middle: str, reason: str
) -> None:
    model = make_model(
        f"""g (float[N,3,4,4] x, float[8,3,1,1] a, float[2,8,1,1] b) => (float[N,2,4,4] y)
            {{ c = Conv(x, a) {middle} y = Conv(h, b) }}""",
        a=floats(8, 3, 1, 1), b=floats(2, 8, 1, 1),
    )  # fmt: skip
    assert groups(model) == []
    assert any(why.startswith(reason) for why in reasons(model).values())


def test_what_a_body_reads_is_frozen(make_model: ModelMaker) -> None:
    model = make_model(
        """g (float[N,6] x, bool c, float[6,8] a, float[8,3] b) => (float[N,3] y)
           { h = MatMul(x, a)
             r = If(c) <then_branch = t () => (float[N,8] u) { u = Relu(h) },
                        else_branch = e () => (float[N,8] v) { v = Neg(h) }>
             y = MatMul(r, b) }""",
        a=floats(6, 8), b=floats(8, 3),
    )  # fmt: skip
    assert groups(model) == []
    assert reasons(model)["n0"] == "the body of If uses it"


def test_a_normalisation_over_channels_is_reported(topologies: Any) -> None:
    found = prunable(topologies.TOPOLOGIES["LayerNorm MLP"](1.0)).groups
    assert [group.shares_statistics for group in found] == [True, False]


@pytest.mark.parametrize("op_type", ["Gelu", "FastGelu", "BiasGelu", "QuickGelu"])
def test_contributed_activations_pass_channels_on(
    make_model: ModelMaker, checked_cut: Any, op_type: str
) -> None:
    bias = ", c" if op_type == "BiasGelu" else ""
    cut = checked_cut(
        make_model(
            f"""g (float[N,6] x, float[6,8] a, float[8] c, float[8,3] b) => (float[N,3] y)
                {{ k = MatMul(x, a) h = Add(k, c) g = com.microsoft.{op_type}(h{bias})
                   y = MatMul(g, b) }}""",
            domains=', "com.microsoft": 1', a=floats(6, 8), c=floats(8), b=floats(8, 3),
        )
    )  # fmt: skip
    assert cut.shape("c") == (4,)


def test_contributed_attention_loses_whole_heads(make_model: ModelMaker, checked_cut: Any) -> None:
    cut = checked_cut(
        make_model(
            """g (float[N,5,8] x, float[8,48] w, float[48] b, float[16,3] o) => (float[N,5,3] y)
               { h = com.microsoft.Attention<num_heads=4>(x, w, b) y = MatMul(h, o) }""",
            domains=', "com.microsoft": 1',
            w=floats(8, 48), b=floats(48), o=floats(16, 3),
        )
    )  # fmt: skip
    assert cut.node("Attention").attributes["num_heads"].as_int() == 2
    assert [cut.shape(name) for name in "wbo"] == [(8, 24), (24,), (8, 3)]


def test_multi_head_attention_loses_whole_heads(make_model: ModelMaker, checked_cut: Any) -> None:
    cut = checked_cut(
        make_model(
            """g (float[N,5,8] x, float[8,16] q, float[8,16] k, float[8,16] v, float[48] b,
                  float[16,3] o) => (float[N,5,3] y)
               { i = MatMul(x, q) j = MatMul(x, k) l = MatMul(x, v)
                 h = com.microsoft.MultiHeadAttention<num_heads=4>(i, j, l, b)
                 y = MatMul(h, o) }""",
            domains=', "com.microsoft": 1',
            q=floats(8, 16), k=floats(8, 16), v=floats(8, 16), b=floats(48), o=floats(16, 3),
        )
    )  # fmt: skip
    assert cut.node("MultiHeadAttention").attributes["num_heads"].as_int() == 2
    assert cut.shape("b") == (24,)


def test_fused_convolutions_are_followed(make_model: ModelMaker, checked_cut: Any) -> None:
    cut = checked_cut(
        make_model(
            """g (float[N,3,4,4] x, float[8,3,1,1] a, float[8] c, float[8,8,1,1] d,
                  float[2,8,1,1] b) => (float[N,2,4,4] y)
               { h = com.microsoft.FusedConv<activation="Relu">(x, a, c)
                 i = com.microsoft.FusedConv<activation="Relu">(h, d, c, h) y = Conv(i, b) }""",
            domains=', "com.microsoft": 1',
            a=floats(8, 3, 1, 1), c=floats(8), d=floats(8, 8, 1, 1), b=floats(2, 8, 1, 1),
        )
    )  # fmt: skip
    assert cut.shape("d") == (4, 4, 1, 1)


def test_weights_that_are_computed_are_masked_in_front(
    make_model: ModelMaker, checked_cut: Any
) -> None:
    cut = checked_cut(
        make_model(
            """g (float[N,6] x, float[6,64] a, float[16,64] b) => (float[N,16] y)
               { h = MatMul(x, a) t = Transpose(b) y = MatMul(h, t) }""",
            a=floats(6, 64), b=floats(16, 64),
        )
    )  # fmt: skip
    assert cut.shape("b") == (16, 32)


def test_custom_operators_are_frozen_and_the_rest_is_cut(make_model: ModelMaker) -> None:
    model = make_model(
        """g (float[N,6] x, float[6,16] a, float[16,8] b, float[8,3] c) => (float[N,3] y)
           { h = MatMul(x, a) i = MatMul(h, b) j = my.Mystery(i) y = MatMul(j, c) }""",
        domains=', "my": 1', a=floats(6, 16), b=floats(16, 8), c=floats(8, 3),
    )  # fmt: skip
    pruned, report = prune(model, PruneSettings(ratio=0.5, multiple=8))
    assert pruned.graph.initializers["b"].shape == (8, 8)
    why = {entry.what: entry.why for entry in report.skipped}
    assert why["n1"] == "Mystery has no relation in the table"
    assert "ONNX Runtime does not know my::Mystery" in why["proof of the cut"]


def test_samples_cannot_be_run_through_custom_operators(make_model: ModelMaker) -> None:
    model = make_model(
        """g (float[N,6] x, float[6,16] a, float[16,3] b) => (float[N,3] y)
           { h = MatMul(x, a) i = MatMul(h, b) y = my.Mystery(i) }""",
        domains=', "my": 1', a=floats(6, 16), b=floats(16, 3),
    )  # fmt: skip
    with pytest.raises(UnsupportedModelError, match="my::Mystery"):
        prune(model, PruneSettings(ratio=0.5, multiple=4), {"x": floats(4, 6)})
