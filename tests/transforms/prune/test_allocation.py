"""How many channels each group keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trimton.core.errors import InputError
from trimton.transforms.prune import PruneSettings, prune
from trimton.transforms.prune.allocation import Limits, allocate, global_, uniform
from trimton.transforms.prune.groups import Group


def group(size: int, width: int = 1, name: str = "layer") -> Group:
    return Group(name, (name,), np.arange(size), width, 1, 1, False)


def kept(sizes: list[int], ratio: float, *, multiple: int = 1, min_kept: int = 1) -> list[int]:
    groups = [group(size) for size in sizes]
    scores = [np.ones(size) for size in sizes]
    limits = Limits(multiple, min_kept)
    return [request.kept for request in allocate(groups, scores, uniform, ratio, limits)]


def test_uniform_takes_the_same_share_of_every_group() -> None:
    assert kept([32, 64, 10], 0.5) == [16, 32, 5]


def test_kept_counts_are_whole_blocks() -> None:
    assert kept([64, 40, 24], 0.4, multiple=8) == [40, 24, 16]
    assert kept([64], 0.7, multiple=16) == [16]


def test_blocks_count_channels_and_not_sets() -> None:
    limits = Limits(multiple=8, min_kept=1)
    heads = group(12, width=32)
    requests = allocate([heads], [np.ones(12)], uniform, 0.25, limits)
    assert requests[0].kept == 9


def test_a_group_smaller_than_a_block_stays_whole_and_says_so() -> None:
    [request] = allocate([group(6)], [np.ones(6)], uniform, 0.5, Limits(8, 1))
    assert request.kept == 6
    assert request.why == "its 6 channels are too few for blocks of 8"


def test_a_request_that_would_empty_a_layer_is_limited_and_says_so() -> None:
    [request] = allocate([group(20)], [np.ones(20)], uniform, 0.99, Limits(1, 1))
    assert request.kept == 1
    assert request.why is not None
    assert "at least 1 of its channels must stay" in request.why


def test_the_minimum_holds() -> None:
    assert kept([20, 100], 0.9, min_kept=5) == [5, 10]


def test_global_takes_the_least_important_of_all() -> None:
    groups = [group(4), group(4)]
    scores = [np.array([1.0, 2, 3, 4]), np.array([10.0, 20, 30, 40])]
    assert global_(groups, scores, 0.5) == [0, 4]
    requests = allocate(groups, scores, global_, 0.5, Limits(1, 1))
    assert [request.kept for request in requests] == [1, 4]
    assert requests[0].why is not None


def test_global_counts_wide_sets_by_their_channels() -> None:
    groups = [group(4, width=2), group(8)]
    scores = [np.full(4, 1.0), np.full(8, 2.0)]
    assert global_(groups, scores, 0.5) == [0, 8]


def test_an_excluded_layer_stays_whole(topologies: Any) -> None:
    model = topologies.TOPOLOGIES["plain"](1.0)
    first = model.graph[0].name
    settings = PruneSettings(ratio=0.5, multiple=1, exclude=(first,))
    pruned, report = prune(model, settings)
    assert pruned.graph.initializers["w0"].shape == (32, 3, 3, 3)
    assert f"it is excluded by {first!r}" in [entry.why for entry in report.skipped]


def test_an_exclusion_of_nothing_is_wrong_use(topologies: Any) -> None:
    model = topologies.TOPOLOGIES["plain"](1.0)
    with pytest.raises(InputError, match="'nowhere\\*' excludes no layer"):
        prune(model, PruneSettings(ratio=0.5, exclude=("nowhere*",)))


def test_pruning_that_changes_nothing_says_so(topologies: Any) -> None:
    model = topologies.TOPOLOGIES["MLP"](0.125)  # 8 and 16 hidden units
    _, report = prune(model, PruneSettings(ratio=0.1, multiple=8))
    assert not report.changed
    assert report.after == report.before


@pytest.mark.parametrize("ratio", [0, 1, -0.5, 2, float("nan")])
def test_a_ratio_outside_0_and_1_is_wrong_use(ratio: float) -> None:
    with pytest.raises(InputError, match="must lie between 0 and 1"):
        PruneSettings(ratio=ratio)
