"""Sensitivity: what is foreseen of a cut, against what a whole refit makes of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.prune import PruneSettings, prune
from trimton.transforms.prune.depth.divergence import Divergence
from trimton.transforms.prune.plan import find, prepared
from trimton.transforms.prune.sensitivity import sensitivities

ModelMaker = Callable[..., ir.Model]

# Four residual blocks of one stream; each has channels of its own.
DEPTH = 4
WEIGHTS = ", ".join(f"float[16,8,3,3] a{i}, float[8,16,3,3] b{i}" for i in range(DEPTH))
BODY = "".join(
    f"p{i} = Conv <pads = [1,1,1,1]> (h{i}, a{i}) r{i} = Relu(p{i}) "
    f"q{i} = Conv <pads = [1,1,1,1]> (r{i}, b{i}) t{i} = Add(q{i}, h{i}) h{i + 1} = Relu(t{i}) "
    for i in range(DEPTH)
)
NETWORK = (
    f"g (float[N,3,8,8] x, float[8,3,1,1] s, {WEIGHTS}) => (float[N,8,8,8] y) {{"
    f"t = Conv(x, s) h0 = Relu(t) {BODY} y = Identity(h{DEPTH}) }}"
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def network(make_model: ModelMaker) -> ir.Model:
    kernels = {f"a{i}": normal(16, 8, 3, 3, seed=i) / 6 for i in range(DEPTH)}
    kernels |= {f"b{i}": normal(8, 16, 3, 3, seed=9 + i) / 12 for i in range(DEPTH)}
    return make_model(NETWORK, s=normal(8, 3, 1, 1), **kernels)


SAMPLES = {"x": normal(160, 3, 8, 8, seed=1)}


def test_what_is_foreseen_of_a_cut_is_close_to_what_a_whole_refit_leaves(
    network: ir.Model,
) -> None:
    work = prepared(network)
    found = find(work)
    foreseen = sensitivities(work, found, SAMPLES)
    unseen = Divergence(network, {"x": normal(64, 3, 8, 8, seed=2)})
    inner = [n for n, group in enumerate(found.groups) if group.channels == 16]
    assert len(inner) == DEPTH
    ratios: list[float] = []
    for number in inner:
        others = [la for n, g in enumerate(found.groups) if n != number for la in g.layers]
        settings = PruneSettings(
            ratio=0.5, importance="reconstruction", multiple=1, exclude=tuple(others)
        )
        pruned, _ = prune(network, settings, SAMPLES)
        known = foreseen[number]
        assert known is not None
        ratios.append(known.errors[7] / unseen.of(pruned))
    assert all(1 / 4 < ratio < 4 for ratio in ratios)
