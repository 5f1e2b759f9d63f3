"""What a network can be run without is found from the graph alone."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.prune import blocks

ModelMaker = Callable[..., ir.Model]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_residual_blocks_are_found_whichever_side_passes_on(
    residual: Callable[..., ir.Model],
) -> None:
    found = blocks(residual())
    assert [block.kind for block in found] == ["residual block"] * 2
    assert [(block.source.name, block.sink.name) for block in found] == [
        ("r0", "a_sum"),
        ("r1", "b_sum"),
    ]
    assert [len(block.layers) for block in found] == [2, 2]
    assert [block.parameters for block in found] == [2 * 8 * 8 * 9 + 8] * 2
    assert [block.macs for block in found] == [2 * 8 * 8 * 9 * 64] * 2


NOT_REMOVABLE = {
    "a shortcut with weights of its own": """g (float[N,8] x, float[8,8] a, float[8,8] b)
      => (float[N,8] y) {
        h = Relu(x)
        p = MatMul(h, a)
        q = MatMul(h, b)
        s = Add(p, q)
        y = Relu(s)
    }""",
    "a sum of other shape than its source": """g (float[N,8] x, float[8,1] a, float[8,8] b)
      => (float[N,8] y) {
        h = Relu(x)
        p = MatMul(h, a)
        s = Add(h, p)
        y = MatMul(s, b)
    }""",
    "an activation without weights": """g (float[N,8] x, float[8,8] a, float[8,8] b)
      => (float[N,8] y) {
        h = MatMul(x, a)
        t = Tanh(h)
        s = Add(h, t)
        y = MatMul(s, b)
    }""",
    "the model itself": """g (float[N,8] x, float[8,8] a, float[8,8] b) => (float[N,8] y) {
        h = MatMul(x, a)
        i = MatMul(h, b)
        y = Add(h, i)
    }""",
}


@pytest.mark.parametrize("name", NOT_REMOVABLE)
def test_what_is_no_block_is_not_found(make_model: ModelMaker, name: str) -> None:
    graph = NOT_REMOVABLE[name]
    a = normal(8, 1) if "float[8,1]" in graph else normal(8, 8)
    assert not blocks(make_model(graph, a=a, b=normal(8, 8)))


def test_what_something_else_needs_too_stays(make_model: ModelMaker) -> None:
    graph = """g (float[N,8] x, float[8,8] a, float[8,8] b, float[8,3] c)
      => (float[N,3] y, float[N,8] z) {
        h = Relu(x)
        p = MatMul(h, a)
        r = Relu(p)
        q = MatMul(r, b)
        s = Add(h, q)
        y = MatMul(s, c)
        z = Identity(r)
    }"""
    (block,) = blocks(make_model(graph, a=normal(8, 8), b=normal(8, 8), c=normal(8, 3)))
    assert [node.op_type for node in block.nodes] == ["MatMul", "Add"]
    assert block.parameters == 64


HEAD = """g (float[N,5,8] x, float[8,8] q, float[8,8] k, float[8,8] v, float[8,8] o,
  float[8,16] u, float[16,8] d, float[8] s, float[8,3] c) => (float[N,5,3] y) {
  i = LayerNormalization(x, s)"""
ATTENTION = """
  {p}q = MatMul({read}, q)
  {p}k = MatMul({read}, k)
  {p}v = MatMul({read}, v)
  {p}kt = Transpose <perm = [0, 2, 1]> ({p}k)
  {p}a = MatMul({p}q, {p}kt)
  {p}w = Softmax({p}a)
  {p}m = MatMul({p}w, {p}v)
  {p}o = MatMul({p}m, o)"""
POST_NORM = (
    HEAD
    + ATTENTION.replace("{read}", "i").replace("{p}", "a_")
    + """
  t1 = Add(i, a_o)
  n1 = LayerNormalization(t1, s)
  m1 = MatMul(n1, u)
  m2 = Relu(m1)
  m3 = MatMul(m2, d)
  t2 = Add(m3, n1)
  n2 = LayerNormalization(t2, s)
  y = MatMul(n2, c)
}"""
)
PRE_NORM = (
    HEAD
    + """
  e = MatMul(i, q)
  n1 = LayerNormalization(e, s)"""
    + ATTENTION.replace("{read}", "n1").replace("{p}", "a_")
    + """
  t1 = Add(e, a_o)
  n2 = LayerNormalization(t1, s)
  m1 = MatMul(n2, u)
  m2 = Relu(m1)
  m3 = MatMul(m2, d)
  t2 = Add(m3, t1)
  y = MatMul(t2, c)
}"""
)


@pytest.mark.parametrize(
    ("graph", "ends"),
    [(POST_NORM, ["i", "n1", "n2"]), (PRE_NORM, ["e", "t1", "t2"])],
    ids=["post-norm", "pre-norm"],
)
def test_a_transformer_layer_is_attention_and_feed_forward(
    make_model: ModelMaker, graph: str, ends: list[str]
) -> None:
    weights = {name: normal(8, 8) for name in "qkvo"}
    model = make_model(
        graph, **weights, u=normal(8, 16), d=normal(16, 8), s=normal(8), c=normal(8, 3)
    )
    start, middle, end = ends
    assert [(block.kind, block.source.name, block.sink.name) for block in blocks(model)] == [
        ("attention", start, middle),
        ("feed-forward", middle, end),
        ("transformer layer", start, end),
    ]
    parts = [block.parameters for block in blocks(model)]
    assert parts[2] == parts[0] + parts[1] - 8  # the normalisations share their scale


def test_blocks_of_a_real_architecture(real_models: ModuleType) -> None:
    found = blocks(real_models.light_model("resnet50").model)
    assert len(found) == 12  # 16 blocks, of which four have a convolution in their shortcut
    assert {len(block.layers) for block in found} == {3}
