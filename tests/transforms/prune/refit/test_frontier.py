"""What is kept of a pass over the samples changes no value, and is bounded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.prune import PruneSettings, prune
from trimton.transforms.prune.refit import frontier as module
from trimton.transforms.prune.refit.frontier import Frontier
from trimton.transforms.prune.refit.taps import Taps

ModelMaker = Callable[..., ir.Model]
GRAPH = """g (float[N,6] x, float[6,8] a, float[8,8] b, float[8,8] c, float[8,3] d)
  => (float[N,3] y) {
  h = MatMul(x, a)
  r = Relu(h)
  i = MatMul(r, b)
  s = Tanh(i)
  j = MatMul(s, c)
  k = Add(j, r)
  y = MatMul(k, d)
}"""
SAMPLES = {"x": np.random.default_rng(1).standard_normal((48, 6)).astype(np.float32)}


def network(make_model: ModelMaker) -> ir.Model:
    rng = np.random.default_rng(0)
    shapes = {"a": (6, 8), "b": (8, 8), "c": (8, 8), "d": (8, 3)}
    return make_model(
        GRAPH, **{n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}
    )


def whole(network: Frontier, name: str) -> np.ndarray:
    return np.concatenate([values[name] for values in network.run([name])])


@pytest.mark.parametrize("changing", [{"i"}, {"j"}, {"y"}, {"h"}, {"i", "j"}, set()])
@pytest.mark.parametrize("name", ["r", "i", "k", "y"])
def test_values_are_the_same_after_settling(
    make_model: ModelMaker, changing: set[str], name: str
) -> None:
    model = network(make_model)
    settled = Frontier(model, SAMPLES)
    settled.settle(changing)
    np.testing.assert_array_equal(whole(settled, name), whole(Frontier(model, SAMPLES), name))


def test_weights_that_may_change_are_seen_when_they_do(make_model: ModelMaker) -> None:
    model = network(make_model)
    settled = Frontier(model, SAMPLES)
    settled.settle({"j"})
    model.graph.initializers["c"].const_value = ir.tensor(np.zeros((8, 8), np.float32), name="c")
    np.testing.assert_array_equal(whole(settled, "k"), whole(settled, "r"))


def test_later_passes_run_only_what_may_change(
    make_model: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    real = Taps

    def watched(model: ir.Model, names: list[str]) -> object:
        ran.append([node.outputs[0].name or "" for node in model.graph])
        return real(model, names)

    settled = Frontier(network(make_model), SAMPLES)
    settled.settle({"j"})
    monkeypatch.setattr(module, "Taps", watched)
    list(settled.run(["s"]))
    assert ran == []  # handed on to what may change, and kept
    settled.settle({"y"})
    list(settled.run(["y"]))
    reads = [value.name for value in module._from(settled.model, settled._kept[0]).graph.inputs]
    assert reads == ["x", "k"]


def test_no_more_is_kept_than_the_budget_allows(make_model: ModelMaker) -> None:
    model = network(make_model)
    small = Frontier(model, SAMPLES, budget_bytes=48 * 8 * 4)
    small.settle({"j"})  # two values of this size are handed on
    assert not small._kept[0]
    small.settle({"y"})  # one is
    assert set(small._kept[0]) == {"k"}


def test_a_refit_is_the_same_without_anything_kept(
    make_model: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for budget in (2**29, 0):
        monkeypatch.setattr(Frontier.__init__, "__defaults__", (budget,))
        pruned, report = prune(network(make_model), PruneSettings(ratio=0.5, multiple=1), SAMPLES)
        assert "refit" in {step.name for step in report.steps}
        made.append({n: v.const_value for n, v in pruned.graph.initializers.items()})
    for name, tensor in made[0].items():
        other = made[1][name]
        assert tensor is not None
        assert other is not None
        np.testing.assert_allclose(tensor.numpy(), other.numpy(), rtol=1e-4, atol=1e-5)
