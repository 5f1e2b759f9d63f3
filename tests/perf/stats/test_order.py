"""Balance of the orders in which arms are measured."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from trimton.perf.stats.order import balanced_order


def test_two_arms_alternate_as_abba():
    first, second, third, fourth = balanced_order(2, 4, seed=3)
    assert first == third == tuple(reversed(second))
    assert second == fourth


@pytest.mark.parametrize("arms", [2, 3, 4, 5, 6])
def test_every_arm_stands_at_every_place_and_after_every_other_equally_often(arms):
    rounds = arms if arms % 2 == 0 else 2 * arms
    order = balanced_order(arms, rounds, seed=1)
    places = Counter((place, arm) for row in order for place, arm in enumerate(row))
    assert set(places.values()) == {rounds // arms}
    assert len(places) == arms * arms
    followers = Counter(pair for row in order for pair in pairwise(row))
    assert len(followers) == arms * (arms - 1)
    assert len(set(followers.values())) == 1


@pytest.mark.parametrize("arms", [1, 2, 3, 5])
def test_every_round_holds_every_arm_once_and_the_seed_decides(arms):
    order = balanced_order(arms, 7, seed=11)
    assert len(order) == 7
    assert all(sorted(row) == list(range(arms)) for row in order)
    assert order == balanced_order(arms, 7, seed=11)


def test_another_seed_gives_another_order():
    assert len({balanced_order(5, 5, seed=seed) for seed in range(10)}) > 1
