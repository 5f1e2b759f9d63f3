"""LayerNormalization in small operators is cut as the operator itself is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.graph.session import open_session, run
from trimton.transforms.prune import PruneSettings, prunable, prune

ModelMaker = Callable[..., ir.Model]
HEAD = "g (float[N,6] x, float[6,16] a, float[16] s, float[16] t, float[16,3] b"
OPERATOR = f"""{HEAD}) => (float[N,3] y) {{
  h = MatMul(x, a)
  n = LayerNormalization <epsilon = 0.00001> (h, s, t)
  y = MatMul(n, b)
}}"""
WITH_MEANS = f"""{HEAD}, float two, float e) => (float[N,3] y) {{
  h = MatMul(x, a)
  m = ReduceMean <axes = [-1]> (h)
  d = Sub(h, m)
  q = Pow(d, two)
  v = ReduceMean <axes = [-1]> (q)
  w = Add(v, e)
  r = Sqrt(w)
  z = Div(d, r)
  g = Mul(z, s)
  n = Add(g, t)
  y = MatMul(n, b)
}}"""
# As TensorFlow writes it: sums times 1/C without their axis, E[x^2] - E[x]^2.
WITH_SUMS = f"""{HEAD}, float c, float zero, float e, int64[1] one) => (float[N,3] y) {{
  h = MatMul(x, a)
  hs = ReduceSum <keepdims = 0> (h, one)
  m = Mul(hs, c)
  hh = Mul(h, h)
  qs = ReduceSum <keepdims = 0> (hh, one)
  q = Mul(qs, c)
  mm = Mul(m, m)
  v = Sub(q, mm)
  p = Max(zero, v)
  p1 = Unsqueeze(p, one)
  w = Add(p1, e)
  r = Sqrt(w)
  i = Reciprocal(r)
  k = Mul(i, s)
  m1 = Unsqueeze(m, one)
  d = Sub(h, m1)
  g = Mul(d, k)
  n = Add(g, t)
  y = MatMul(n, b)
}}"""


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    shapes = {"a": (6, 16), "s": (16,), "t": (16,), "b": (16, 3)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def scalars(**numbers: float) -> dict[str, np.ndarray]:
    return {name: np.array(number, np.float32) for name, number in numbers.items()}


def halved(model: ir.Model, x: np.ndarray) -> np.ndarray:
    settings = PruneSettings(ratio=0.5, multiple=1, fold_constants=False)
    pruned, report = prune(model, settings)
    assert report.after.parameters < 0.6 * report.before.parameters
    made: np.ndarray = run(open_session(pruned), {"x": x})["y"]
    return made


@pytest.mark.parametrize(
    ("graph", "constants"),
    [
        (WITH_MEANS, scalars(two=2, e=1e-5)),
        (WITH_SUMS, {**scalars(c=1 / 16, zero=0, e=1e-5), "one": np.array([1])}),
    ],
)
def test_what_is_left_is_normalised_over_what_is_left(
    make_model: ModelMaker, graph: str, constants: dict[str, np.ndarray]
) -> None:
    x = np.random.default_rng(5).standard_normal((4, 6)).astype(np.float32)
    written_out = halved(make_model(graph, **weights(), **constants), x)
    np.testing.assert_allclose(
        written_out, halved(make_model(OPERATOR, **weights()), x), rtol=1e-3, atol=1e-4
    )


def test_the_channels_are_marked(make_model: ModelMaker) -> None:
    (group,) = prunable(make_model(WITH_MEANS, **weights(), **scalars(two=2, e=1e-5))).groups
    assert group.shares_statistics


@pytest.mark.parametrize(
    "use",
    [
        "u = Exp(m)\n  n = Mul(h, u)",  # no arithmetic of a norm
        "n = Concat <axis = -1> (h, m)",  # the mean is a channel of its own
        "o = Relu(m)\n  n = Identity(h)\n  o2 = Identity(o)",
    ],
)
def test_a_mean_that_does_more_than_normalise_keeps_its_channels(
    make_model: ModelMaker, use: str
) -> None:
    width = 17 if "Concat" in use else 16
    graph = f"""g (float[N,6] x, float[6,16] a, float[{width},3] b) => (float[N,3] y) {{
      h = MatMul(x, a)
      m = ReduceMean <axes = [-1]> (h)
      {use}
      y = MatMul(n, b)
    }}"""
    values = {"a": weights()["a"], "b": np.ones((width, 3), np.float32)}
    found = prunable(make_model(graph, **values))
    assert not found.groups
    assert "ReduceMean goes over it" in {layer.why for layer in found.frozen}
