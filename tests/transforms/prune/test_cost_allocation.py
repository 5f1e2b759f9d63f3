"""Allocation by cost: the model of the cost, the choice of counts, and targets that are reached."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import InputError
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.prune import PruneSettings, cost_target, prune
from trimton.transforms.prune.allocation import Limits
from trimton.transforms.prune.cost_allocation import Problem, least_loss
from trimton.transforms.prune.cost_model import CostModel
from trimton.transforms.prune.cost_profile import Feed, mac_model, time_model
from trimton.transforms.prune.cut import cut, kept_indices
from trimton.transforms.prune.plan import find, prepared
from trimton.transforms.prune.refit.elimination import Elimination

ModelMaker = Callable[..., ir.Model]

CHAIN = """g (float[1,3,40,40] x, float[32,3,3,3] a, float[24,32,3,3] b, float[4,24,3,3] c)
  => (float[1,4,34,34] y) {
  h = Conv(x, a)
  i = Relu(h)
  j = Conv(i, b)
  k = Relu(j)
  y = Conv(k, c)
}"""


@pytest.fixture
def chain(make_model: ModelMaker) -> ir.Model:
    """Three convolutions: groups of 32 and of 24 channels."""
    rng = np.random.default_rng(0)
    shapes = {"a": (32, 3, 3, 3), "b": (24, 32, 3, 3), "c": (4, 24, 3, 3)}
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    return make_model(CHAIN, **weights)


SAMPLES = {"x": np.random.default_rng(1).standard_normal((48, 3, 40, 40)).astype(np.float32)}


def trial(model: ir.Model, kept: list[int]) -> ir.Model:
    copy = prepared(model)
    found = find(copy)
    gone = [g.sets[: len(g.sets) - k] for g, k in zip(found.groups, kept, strict=True)]
    cut(copy, kept_indices(found.ties, found.found, np.concatenate(gone)))
    return copy


@pytest.mark.parametrize("kept", [[32, 24], [16, 24], [8, 16], [1, 1]])
def test_predicted_macs_are_those_of_the_cut_model(chain: ir.Model, kept: list[int]) -> None:
    work = prepared(chain)
    found = find(work)
    predicted = mac_model(work, found).cost(found.groups, kept)
    assert round(predicted) == model_cost(trial(chain, kept)).macs


def test_profiled_time_names_every_layer_and_falls_with_the_counts(chain: ir.Model) -> None:
    work = prepared(chain)
    found = find(work)
    feed = {"x": SAMPLES["x"][:1]}
    levels = [[8, 8], [16, 16]]
    model = time_model(work, found, lambda kept: trial(chain, list(kept)), levels, feed)
    assert (model.costs > 0).all()
    assert (np.diff(model.costs, axis=0) >= 0).all()
    assert model.cost(found.groups, [8, 8]) <= model.cost(found.groups, [32, 24])
    at_level = model.rest + model.costs[1].sum()
    assert model.cost(found.groups, [16, 16]) == pytest.approx(at_level)


def problem(
    chain: ir.Model, exponents: tuple[float, float], most: tuple[float, float] = (1.0, 1.0)
) -> tuple[Problem, CostModel]:
    """Losses that grow up to ``most`` as powers of what is gone; cost in multiply-accumulates."""
    work = prepared(chain)
    found = find(work)
    losses = [
        Elimination(np.arange(n), all_gone * (np.arange(1, n + 1) / n) ** exponent)
        for n, exponent, all_gone in zip((32, 24), exponents, most, strict=True)
    ]
    return Problem(found, losses, Limits(8, 1)), mac_model(work, found)


@pytest.mark.parametrize("share", [0.8, 0.5, 0.3])
def test_counts_lose_hardly_more_than_the_best_of_all(chain: ir.Model, share: float) -> None:
    given, model = problem(chain, (1.5, 3.0))
    target = share * model.cost(given.groups, given.whole())
    kept = least_loss(given, model, target)
    assert model.cost(given.groups, kept) <= target
    every = itertools.product(given.counts(0), given.counts(1))
    fitting = [k for k in every if model.cost(given.groups, k) <= target]
    best = min(sum(given.loss(n, k) for n, k in enumerate(counts)) for counts in fitting)
    assert sum(given.loss(n, k) for n, k in enumerate(kept)) <= 1.3 * best


def test_what_was_a_bargain_only_at_first_is_given_back(chain: ir.Model) -> None:
    given, model = problem(chain, (1.5, 0.5), most=(1.0, 0.3))
    target = 0.8 * model.cost(given.groups, given.whole())
    kept = least_loss(given, model, target)
    every = itertools.product(given.counts(0), given.counts(1))
    fitting = [list(k) for k in every if model.cost(given.groups, list(k)) <= target]
    assert kept == min(fitting, key=given.total_loss)


def test_a_group_of_unknown_loss_stays_whole(chain: ir.Model) -> None:
    known, model = problem(chain, (2.0, 2.0))
    given = Problem(known.found, [None, known.losses[1]], known.limits)
    kept = least_loss(given, model, 0.8 * model.cost(given.groups, given.whole()))
    assert kept[0] == 32
    assert kept[1] < 24


def test_a_target_out_of_reach_says_what_is_possible(chain: ir.Model) -> None:
    given, model = problem(chain, (2.0, 2.0))
    with pytest.raises(InputError, match=r"out of reach: the least .* is \d+% of"):
        least_loss(given, model, 1.0)


def test_a_share_of_macs_is_kept_to(chain: ir.Model) -> None:
    settings = PruneSettings(
        target_macs=0.5, multiple=8, allocation="cost", importance="reconstruction"
    )
    pruned, report = prune(chain, settings, SAMPLES)
    before, after = model_cost(chain).macs, model_cost(pruned).macs
    assert before is not None
    assert after is not None
    assert 0.3 < after / before <= 0.5
    (step,) = [step for step in report.steps if step.name == "allocate"]
    assert step.detail["reached"] == pytest.approx(after / before)


def test_a_speedup_is_measured_and_reported(chain: ir.Model) -> None:
    settings = PruneSettings(target_speedup=1.2, multiple=8, allocation="cost")
    pruned, report = prune(chain, settings, SAMPLES)
    before, after = model_cost(chain).macs, model_cost(pruned).macs
    assert (after or 0) < (before or 0)
    (step,) = [step for step in report.steps if step.name == "allocate"]
    assert step.detail["kind"] == "measured speed-up"
    assert step.detail["reached"] > 0


def test_a_speed_is_that_of_as_many_samples_as_a_run_has(
    chain: ir.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: set[int] = set()
    measure = cost_target.speedup

    def speedup(model: ir.Model, other: ir.Model, feed: Feed) -> float:
        batches.update(len(array) for array in feed.values())
        return measure(model, other, feed)

    monkeypatch.setattr(cost_target, "speedup", speedup)
    for value in (*chain.graph.inputs, *chain.graph.outputs):
        assert value.shape is not None
        value.shape = ir.Shape(["N", *list(value.shape)[1:]])
    settings = PruneSettings(target_speedup=1.1, speed_batch=8, multiple=8, allocation="cost")
    prune(chain, settings, SAMPLES)
    assert batches == {8}


def test_a_speedup_out_of_reach_names_the_fastest(chain: ir.Model) -> None:
    with pytest.raises(InputError, match=r"target speedup 1000: is out of reach; the fastest"):
        prune(chain, PruneSettings(target_speedup=1000, multiple=8, allocation="cost"), SAMPLES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 0.5, "speed_batch": 0}, "speed batch 0: must be a whole number"),
        ({}, "give one of ratio, target macs and target speedup"),
        ({"ratio": 0.5, "target_macs": 0.5}, "and only one"),
        ({"ratio": 0.5, "allocation": "cost"}, "allocation 'cost': does not fit"),
        ({"target_macs": 0.5}, "allocation 'uniform': does not fit"),
        ({"target_macs": 1.5, "allocation": "cost"}, "target macs 1.5: must lie between"),
        ({"target_speedup": 1.0, "allocation": "cost"}, "target speedup 1: must be more"),
    ],
)
def test_goals_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PruneSettings(**settings)


def test_a_target_without_samples_is_refused(chain: ir.Model) -> None:
    with pytest.raises(InputError, match="allocation 'cost': needs samples; give --data"):
        prune(chain, PruneSettings(target_macs=0.5, allocation="cost"))
