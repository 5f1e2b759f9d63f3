"""Ranks over all layers: within the target, and nothing left that could be had for free."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimton.core.errors import InputError
from trimton.transforms.factorise.allocation import Option, least_loss


@st.composite
def layers(draw: st.DrawFn) -> list[list[Option]]:
    count = draw(st.integers(1, 5))
    found = []
    for _ in range(count):
        costs = draw(st.lists(st.integers(1, 100), min_size=1, max_size=6, unique=True))
        whole, *ranks = sorted(costs, reverse=True)
        losses = sorted(
            draw(st.lists(st.floats(0.01, 1), min_size=len(ranks), max_size=len(ranks)))
        )
        options = [
            Option(number, float(cost), loss)
            for number, (cost, loss) in enumerate(zip(ranks, losses, strict=True))
        ]
        found.append([Option(None, float(whole), 0.0), *options])
    return found


@given(layers(), st.floats(0, 1), st.integers(0, 50))
def test_the_target_holds_and_no_single_step_would_lose_less(
    options: list[list[Option]], share: float, rest: int
) -> None:
    least = rest + sum(min(o.cost for o in ways) for ways in options)
    whole = rest + sum(ways[0].cost for ways in options)
    target = least + share * (whole - least)
    chosen = least_loss(options, rest, target)
    cost = rest + sum(option.cost for option in chosen)
    assert cost <= target
    for ways, now in zip(options, chosen, strict=True):
        for other in ways:
            assert other.loss >= now.loss or cost - now.cost + other.cost > target


def test_cheap_losses_come_first() -> None:
    dear = [Option(None, 10.0, 0.0), Option(4, 5.0, 0.5)]
    cheap = [Option(None, 10.0, 0.0), Option(4, 5.0, 0.1)]
    assert [option.rank for option in least_loss([dear, cheap], 0.0, 15.0)] == [None, 4]


def test_a_target_out_of_reach_says_what_is_in_reach() -> None:
    with pytest.raises(InputError, match="costs 75% of what it costs now"):
        least_loss([[Option(None, 10.0, 0.0), Option(4, 5.0, 0.5)]], 10.0, 1.0)
