"""Which channels a criterion keeps, on layers whose answer can be seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import InputError
from trimton.transforms.prune import PruneSettings, prune

ModelMaker = Callable[..., ir.Model]
# Columns of the first layer (8 hidden units), and rows of the second: sizes in a known order.
SIZES = np.array([5, 1, 7, 2, 8, 3, 6, 4], np.float32)
LARGEST = [0, 2, 4, 6]


def kept_columns(
    model: ir.Model,
    importance: str,
    original: np.ndarray,
    samples: Mapping[str, np.ndarray] | None = None,
) -> list[int]:
    settings = PruneSettings(ratio=0.5, importance=importance, multiple=1)
    pruned, _ = prune(model, settings, samples)
    tensor = pruned.graph.initializers["a"].const_value
    assert tensor is not None
    return [
        index
        for index in range(original.shape[1])
        if any(np.array_equal(original[:, index], column) for column in tensor.numpy().T)
    ]


def two_layers(make_model: ModelMaker, a: np.ndarray, b: np.ndarray) -> ir.Model:
    return make_model(
        """g (float[N,4] x, float[4,8] a, float[8,3] b) => (float[N,3] y)
           { h = MatMul(x, a) y = MatMul(h, b) }""",
        a=a, b=b,
    )  # fmt: skip


@pytest.mark.parametrize("importance", ["l1", "l2"])
def test_magnitude_keeps_large_weights(make_model: ModelMaker, importance: str) -> None:
    a = np.random.default_rng(0).uniform(0.9, 1, (4, 8)).astype(np.float32) * SIZES
    model = two_layers(make_model, a, np.ones((8, 3), np.float32))
    assert kept_columns(model, importance, a) == LARGEST


def test_magnitude_counts_what_reads_a_channel(make_model: ModelMaker) -> None:
    a = np.random.default_rng(0).uniform(0.9, 1, (4, 8)).astype(np.float32)
    model = two_layers(make_model, a, SIZES[:, None] * np.ones((8, 3), np.float32))
    assert kept_columns(model, "l2", a) == LARGEST


def test_l1_and_l2_differ_on_spread_weights(make_model: ModelMaker) -> None:
    a = np.full((4, 8), 1.0, np.float32) + np.arange(8) * np.float32(1e-3)
    a[:, :4] = 0
    a[0, :4] = [3.0, 3.1, 3.2, 3.3]  # L1 3.x against 4, L2 3.x against 2
    model = two_layers(make_model, a, np.full((8, 3), 0.01, np.float32))
    assert kept_columns(model, "l1", a) == [4, 5, 6, 7]
    assert kept_columns(model, "l2", a) == [0, 1, 2, 3]


def test_geometric_median_drops_what_others_resemble(make_model: ModelMaker) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(0, 0.01, (4, 8)).astype(np.float32) + np.float32(5)
    a[:, LARGEST] = 5 * np.eye(4, dtype=np.float32)  # far from the crowd, and smaller
    model = two_layers(make_model, a, np.ones((8, 3), np.float32))
    assert kept_columns(model, "geometric-median", a) == LARGEST


def test_activation_sees_what_weights_hide(make_model: ModelMaker) -> None:
    a = np.zeros((4, 8), np.float32)
    a[0, :4], a[1, 4:] = [10, 11, 12, 13], [1, 2, 3, 4]
    samples = {"x": np.zeros((20, 4), np.float32)}
    samples["x"][:, 1] = 1  # the input of the large weights is never on
    model = two_layers(make_model, a, np.ones((8, 3), np.float32))
    assert kept_columns(model, "l2", a) == [0, 1, 2, 3]
    assert kept_columns(model, "activation", a, samples) == [4, 5, 6, 7]


def test_activation_without_samples_is_wrong_use(make_model: ModelMaker) -> None:
    model = two_layers(make_model, np.ones((4, 8), np.float32), np.ones((8, 3), np.float32))
    with pytest.raises(InputError, match="'activation': needs samples"):
        prune(model, PruneSettings(ratio=0.5, importance="activation"))


def test_batchnorm_scale_keeps_large_scales(make_model: ModelMaker) -> None:
    a = np.random.default_rng(0).standard_normal((8, 3, 1, 1)).astype(np.float32)
    model = make_model(
        """g (float[N,3,4,4] x, float[8,3,1,1] a, float[8] s, float[8] z, float[8] v,
              float[2,8,1,1] b) => (float[N,2,4,4] y)
           { c = Conv(x, a) n = BatchNormalization(c, s, z, z, v) r = Relu(n) y = Conv(r, b) }""",
        a=a, s=SIZES * np.float32([1, -1] * 4), z=np.zeros(8, np.float32),
        v=np.ones(8, np.float32), b=np.ones((2, 8, 1, 1), np.float32),
    )  # fmt: skip
    settings = PruneSettings(ratio=0.5, importance="batchnorm-scale", multiple=1)
    pruned, _ = prune(model, settings)
    tensor = pruned.graph.initializers["s"].const_value
    assert tensor is not None
    assert tensor.numpy().tolist() == [5, 7, 8, 6]


def test_a_group_that_a_criterion_cannot_see_is_ranked_by_magnitude(
    make_model: ModelMaker,
) -> None:
    a = np.random.default_rng(0).uniform(0.9, 1, (4, 8)).astype(np.float32) * SIZES
    model = two_layers(make_model, a, np.ones((8, 3), np.float32))
    assert kept_columns(model, "batchnorm-scale", a) == LARGEST
    settings = PruneSettings(ratio=0.5, importance="batchnorm-scale", multiple=1)
    skipped = prune(model, settings)[1].skipped
    assert "batchnorm-scale says nothing about it, so it is ranked by l2" in [
        entry.why for entry in skipped
    ]


def test_random_follows_its_seed(make_model: ModelMaker) -> None:
    a = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    model = two_layers(make_model, a, np.ones((8, 3), np.float32))

    def kept(seed: int) -> list[list[float]]:
        chosen = PruneSettings(ratio=0.5, importance="random", multiple=1, seed=seed)
        tensor = prune(model, chosen)[0].graph.initializers["a"].const_value
        assert tensor is not None
        return tensor.numpy().tolist()

    assert kept(1) == kept(1)
    assert len({str(kept(seed)) for seed in range(6)}) > 1


@pytest.mark.parametrize("field", ["importance", "allocation"])
def test_an_unknown_name_lists_the_known_ones(field: str) -> None:
    with pytest.raises(InputError, match="is not known; choose"):
        PruneSettings(ratio=0.5, **{field: "best"})
