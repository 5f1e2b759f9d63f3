"""Importance by gradients: what the removal of a channel really costs the outputs."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.prune import PruneSettings, prune
from trimton.transforms.prune.gradients import ESTIMATES, removal_effects
from trimton.transforms.prune.plan import find, prepared

ModelMaker = Callable[..., ir.Model]
ESTIMATE_NAMES = sorted(ESTIMATES)


def samples(count: int = 256, width: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((count, width)).astype(np.float32)}


def effects(model: ir.Model, data: dict[str, np.ndarray], estimate: str) -> np.ndarray:
    work = prepared(model)
    found = find(work)
    (group,) = found.groups
    return removal_effects(work, found, data, estimate, 0)[group.sets]


def classifier(make_model: ModelMaker, reading: np.ndarray) -> ir.Model:
    rng = np.random.default_rng(1)
    return make_model(
        """g (float[N,4] x, float[4,8] a, float[8,3] b) => (float[N,3] y)
           { h = MatMul(x, a) r = Relu(h) z = MatMul(r, b) y = Softmax <axis = -1> (z) }""",
        a=rng.standard_normal((4, 8)).astype(np.float32), b=reading.astype(np.float32),
    )  # fmt: skip


def true_effects(model: ir.Model, x: np.ndarray) -> np.ndarray:
    """The mean divergence when a channel is replaced by its mean, in nats, for each channel."""
    a, b = (model.graph.initializers[name].const_value.numpy() for name in "ab")
    read = np.maximum(x @ a, 0)

    def answers(channels: np.ndarray) -> np.ndarray:
        exponents = np.exp(channels @ b)
        return exponents / exponents.sum(axis=1, keepdims=True)

    whole, costs = answers(read), []
    for channel in range(read.shape[1]):
        without = read.copy()
        without[:, channel] = read[:, channel].mean()
        costs.append((whole * np.log(whole / answers(without))).sum(axis=1).mean())
    return np.array(costs)


@pytest.mark.parametrize("estimate", ESTIMATE_NAMES)
def test_effects_follow_what_a_removal_costs(make_model: ModelMaker, estimate: str) -> None:
    rng = np.random.default_rng(2)
    model = classifier(
        make_model, rng.standard_normal((8, 3)) * np.geomspace(0.02, 0.3, 8)[:, None]
    )
    data = samples()
    found, true = effects(model, data, estimate), true_effects(model, data["x"])

    assert np.corrcoef(np.log(found), np.log(true))[0, 1] > 0.85


def test_taylor_is_the_divergence_itself_where_channels_do_little(make_model: ModelMaker) -> None:
    rng = np.random.default_rng(3)
    model = classifier(make_model, 0.05 * rng.standard_normal((8, 3)))
    data = samples()

    ratio = effects(model, data, "taylor") / true_effects(model, data["x"])
    assert np.median(ratio) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("estimate", ESTIMATE_NAMES)
def test_a_channel_that_never_changes_costs_nothing(make_model: ModelMaker, estimate: str) -> None:
    model = classifier(make_model, np.random.default_rng(4).standard_normal((8, 3)))
    data = samples()
    data["x"][:, 0] = 2
    kernel = model.graph.initializers["a"].const_value.numpy().copy()
    kernel[:, 5] = [1, 0, 0, 0]  # reads the constant alone, and gives 2 always
    model.graph.initializers["a"].const_value = ir.tensor(kernel, name="a")
    found = effects(model, data, estimate)

    assert found[5] < 1e-9 * np.median(found)


def test_weights_of_a_set_that_cancel_out_are_seen_by_taylor_alone(make_model: ModelMaker) -> None:
    # Both heads read every channel; their sum takes channels 0 to 3 away again.
    rng = np.random.default_rng(5)
    kernel = rng.standard_normal((8, 1)).astype(np.float32)
    other = np.where(np.arange(8)[:, None] < 4, -kernel, kernel).astype(np.float32)
    model = make_model(
        """g (float[N,4] x, float[4,8] a, float[8,1] b, float[8,1] c) => (float[N,1] y)
           { h = MatMul(x, a) r = Relu(h) one = MatMul(r, b) two = MatMul(r, c)
             y = Add(one, two) }""",
        a=rng.standard_normal((4, 8)).astype(np.float32), b=kernel, c=other,
    )  # fmt: skip
    whole, single = (effects(model, samples(), name) for name in ("taylor", "hessian"))

    assert whole[:4].max() < 1e-9 * whole[4:].max()
    assert single[:4].min() > 1e-3 * single[4:].max()


@pytest.mark.parametrize("estimate", ESTIMATE_NAMES)
def test_pruning_by_gradients_hurts_less_than_by_chance(
    make_model: ModelMaker, estimate: str
) -> None:
    rng = np.random.default_rng(6)
    model = make_model(
        """g (float[N,3,6,6] x, float[16,3,3,3] a, float[16] s, float[16] t, float[16] m,
              float[16] v, float[4,16,3,3] b) => (float[N,4,1,1] logits)
           { c = Conv <pads = [1, 1, 1, 1]> (x, a) n = BatchNormalization(c, s, t, m, v)
             r = Relu(n) d = Conv(r, b) logits = GlobalAveragePool(d) }""",
        a=rng.standard_normal((16, 3, 3, 3)).astype(np.float32),
        s=rng.uniform(0.1, 2, 16).astype(np.float32), t=rng.standard_normal(16).astype(np.float32),
        m=np.zeros(16, np.float32), v=np.full(16, 27, np.float32),
        b=rng.standard_normal((4, 16, 3, 3)).astype(np.float32),
    )  # fmt: skip
    data = {"x": rng.standard_normal((64, 3, 6, 6)).astype(np.float32)}

    def lost(importance: str, seed: int = 0) -> float:
        settings = PruneSettings(
            ratio=0.5, importance=importance, multiple=1, refit=False, statistics=False, seed=seed
        )
        return float(prune(model, settings, data)[1].max_relative_difference or 0)

    by_chance = np.median([lost("random", seed) for seed in range(5)])
    assert lost(estimate) < by_chance


def test_gradients_need_samples(make_model: ModelMaker) -> None:
    model = classifier(make_model, np.ones((8, 3)))
    with pytest.raises(InputError, match="'taylor': needs samples; give --data"):
        prune(model, PruneSettings(ratio=0.5, importance="taylor"))


def test_an_operator_without_a_gradient_is_named(make_model: ModelMaker) -> None:
    model = make_model(
        """g (float[N,4] x, float[4,8] a, float[8,3] b) => (float[N,3] y)
           { h = MatMul(x, a) r = com.microsoft.QuickGelu(h) y = MatMul(r, b) }""",
        domains=', "com.microsoft": 1',
        a=np.ones((4, 8), np.float32), b=np.ones((8, 3), np.float32),
    )  # fmt: skip
    work = prepared(model)
    with pytest.raises(UnsupportedModelError, match="QuickGelu"):
        removal_effects(work, find(work), samples(), "taylor", 0)


def test_without_torch_the_extra_to_install_is_named(
    make_model: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = classifier(make_model, np.ones((8, 3)))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"need torch, .* pip install 'trimton\[distill\]'"):
        prune(model, PruneSettings(ratio=0.5, importance="hessian"), samples())
