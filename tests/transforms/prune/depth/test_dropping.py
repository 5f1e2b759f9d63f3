"""Blocks go by what their absence does, and other layers make up for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.graph.inputs import interface
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.prune import PruneSettings, blocks, prune, ranked_blocks
from trimton.transforms.prune.depth.divergence import divergence_of_classes, relative_error

Residual = Callable[..., ir.Model]
Samples = dict[str, np.ndarray]


def outputs(model: ir.Model, samples: Samples) -> np.ndarray:
    made: np.ndarray = run(open_session(model), samples)["y"]
    return made


def error(model: ir.Model, pruned: ir.Model) -> float:
    """On inputs that no fit has seen."""
    fresh = {"x": np.random.default_rng(99).standard_normal((64, 3, 8, 8)).astype(np.float32)}
    return relative_error(outputs(model, fresh), outputs(pruned, fresh))


def test_a_block_that_adds_a_constant_leaves_no_trace(residual: Residual, samples: Samples) -> None:
    """Its last weights are zero, its bias is not: the mean takes its place exactly."""
    model = residual(a=0.0)
    pruned, report = prune(model, PruneSettings(blocks=1, refit=False), samples)
    np.testing.assert_allclose(
        outputs(pruned, samples), outputs(model, samples), rtol=1e-4, atol=1e-4
    )
    (step,) = report.steps
    assert step.name == "drop-block"
    assert step.detail["damage"] < 1e-8
    assert interface(pruned) == interface(model)
    assert report.before.parameters - report.after.parameters == step.detail["parameters"] - 8


@pytest.mark.parametrize(("a", "b", "first"), [(1.0, 0.1, "b"), (0.1, 1.0, "a")])
def test_the_block_that_does_least_goes_first(
    residual: Residual, samples: Samples, a: float, b: float, first: str
) -> None:
    model = residual(a, b)
    ranked = ranked_blocks(model, samples)
    assert ranked[0].bypass.sink == f"{first}_sum"
    assert ranked[0].damage < ranked[1].damage
    _, report = prune(model, PruneSettings(blocks=1, refit=False), samples)
    assert [s.detail["damage"] for s in report.steps] == pytest.approx([ranked[0].damage])


def test_layers_behind_make_up_for_a_block(residual: Residual, samples: Samples) -> None:
    model = residual()
    errors = {}
    for does_refit in (False, True):
        pruned, report = prune(model, PruneSettings(blocks=1, refit=does_refit), samples)
        errors[does_refit] = error(model, pruned)
    assert errors[True] < 0.75 * errors[False]
    assert "refit" in {step.name for step in report.steps}


LINEAR = """g (float[N,6] x, float[6,8] s, float[8,8] a, float[8,8] b, float[8,3] c)
  => (float[N,3] y) {
  r0 = MatMul(x, s)
  p = Relu(r0)
  a_out = MatMul(p, a)
  r1 = Add(r0, a_out)
  q = Tanh(r1)
  b_out = MatMul(q, b)
  r2 = Add(r1, b_out)
  y = MatMul(r2, c)
}"""


def test_layers_of_the_same_sum_give_what_the_block_gave(
    make_model: Callable[..., ir.Model],
) -> None:
    rng = np.random.default_rng(0)
    shapes = {"s": (6, 8), "a": (8, 8), "b": (8, 8), "c": (8, 3)}
    weights = {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}
    weights["b"] *= 0.1
    samples = {"x": rng.standard_normal((320, 6)).astype(np.float32)}
    _, report = prune(make_model(LINEAR, **weights), PruneSettings(blocks=1), samples)
    targets = [step.detail["target"] for step in report.steps if step.name == "refit"]
    assert "r2" in targets
    assert targets[-1] == "y"


def test_blocks_and_channels_go_together(residual: Residual, samples: Samples) -> None:
    settings = PruneSettings(blocks=1, ratio=0.5, multiple=1)
    pruned, report = prune(residual(), settings, samples)
    assert {"drop-block", "cut", "refit"} <= {step.name for step in report.steps}
    assert report.after.parameters < 0.4 * report.before.parameters
    assert outputs(pruned, samples).shape == (96, 4, 8, 8)


def test_a_target_counts_from_the_whole_model(residual: Residual, samples: Samples) -> None:
    settings = PruneSettings(
        blocks=1, target_macs=0.4, allocation="cost", importance="reconstruction", multiple=1
    )
    _, report = prune(residual(), settings, samples)
    share = (report.after.macs or 0) / (report.before.macs or 1)
    assert 0.3 < share <= 0.4


def test_a_sum_that_broadcasts_along_a_free_dimension_is_no_block(
    make_model: Callable[..., ir.Model],
) -> None:
    graph = """g (float[N,T,8] x, float[N,M,8] p, float[8,8] a, float[8,3] c)
      => (float[N,L,3] y) {
      h = Relu(x)
      i = MatMul(h, a)
      j = Mul(i, p)
      r = Add(h, j)
      y = MatMul(r, c)
    }"""
    rng = np.random.default_rng(0)
    model = make_model(graph, a=np.eye(8, dtype=np.float32), c=np.ones((8, 3), np.float32))
    assert [block.sink.name for block in blocks(model)] == ["r"]
    for length, removable in ((1, 0), (5, 1)):
        samples = {
            "x": rng.standard_normal((32, length, 8)).astype(np.float32),
            "p": rng.standard_normal((32, 5, 8)).astype(np.float32),
        }
        assert len(ranked_blocks(model, samples)) == removable


def test_no_more_blocks_than_there_are(residual: Residual, samples: Samples) -> None:
    with pytest.raises(InputError, match="no more than 2 to remove"):
        prune(residual(), PruneSettings(blocks=3), samples)


def test_a_model_without_blocks_is_refused(
    make_model: Callable[..., ir.Model], samples: Samples
) -> None:
    graph = """g (float[N,3,8,8] x, float[4,3,1,1] a) => (float[N,4,8,8] y) {
      y = Conv(x, a)
    }"""
    model = make_model(graph, a=np.ones((4, 3, 1, 1), np.float32))
    with pytest.raises(UnsupportedModelError, match="no block to remove"):
        prune(model, PruneSettings(blocks=1), samples)


def test_blocks_need_samples(residual: Residual) -> None:
    with pytest.raises(InputError, match="blocks 1: needs samples"):
        prune(residual(), PruneSettings(blocks=1))


def test_fewer_than_no_blocks_are_refused() -> None:
    with pytest.raises(InputError, match="blocks -1"):
        PruneSettings(blocks=-1)


LOGITS = st.lists(st.floats(-20, 20), min_size=3, max_size=3)


@given(LOGITS, LOGITS, st.floats(-5, 5))
def test_divergence_of_classes_is_that_of_their_probabilities(
    old: list[float], new: list[float], shift: float
) -> None:
    one, other = np.array([old]), np.array([new])
    found = divergence_of_classes(one, other)
    p, q = (np.exp(each) / np.exp(each).sum() for each in (one, other))
    assert found == pytest.approx(float((p * np.log(p / q)).sum()), abs=1e-9)
    assert found >= -1e-12
    assert divergence_of_classes(one, one + shift) == pytest.approx(0, abs=1e-9)
