"""Every way in which channels can be tied: all of what can be halved is halved, and exactly."""

from __future__ import annotations

from types import ModuleType

import pytest

from trimton.transforms.graph.cost import model_cost
from trimton.transforms.prune import PruneSettings, prune

NAMES = (
    "plain",
    "BatchNorm unfused",
    "residual",
    "residual + BatchNorm",
    "depthwise",
    "concat",
    "split + concat",
    "channel shuffle",
    "squeeze-excite",
    "grouped",
    "Conv-Flatten-Gemm",
    "ConvTranspose",
    "slice",
    "LSTM",
    "GRU",
    "MLP",
    "multi-head attention",
    "LayerNorm MLP",
    "U-Net with skips",
    "dense block",
    "inception block",
)


def test_every_topology_is_tested(topologies: ModuleType) -> None:
    assert tuple(topologies.TOPOLOGIES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_half_of_the_channels_are_cut_to_the_ideal(topologies: ModuleType, name: str) -> None:
    build = topologies.TOPOLOGIES[name]
    original, ideal = build(1.0), model_cost(build(0.5))
    _, report = prune(original, PruneSettings(ratio=0.5, multiple=1))
    assert report.after.parameters == ideal.parameters
    assert report.after.macs == ideal.macs


@pytest.mark.parametrize("ratio", [0.25, 0.75])
@pytest.mark.parametrize("name", NAMES)
def test_masked_equals_cut(topologies: ModuleType, checked_cut, name: str, ratio: float) -> None:
    checked_cut(topologies.TOPOLOGIES[name](1.0), ratio, is_exact="LayerNorm" not in name)


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_masked_equals_cut_in_whole_architectures(
    real_models: ModuleType, checked_cut, name: str
) -> None:
    original = real_models.light_model(name).model
    cut = checked_cut(original, 0.5)
    assert model_cost(cut.model).parameters < 0.4 * model_cost(original).parameters
