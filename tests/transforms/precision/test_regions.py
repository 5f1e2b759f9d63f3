"""Regions: the choice of least cost, against all choices tried."""

from __future__ import annotations

from itertools import pairwise, product

from hypothesis import given
from hypothesis import strategies as st

from trimton.transforms.precision.regions import CAST_COST, MUST, Flow, nodes_in_half

NODES = st.integers(0, 5)
FLOWS = st.lists(
    st.builds(
        Flow[int],
        st.none() | NODES,
        st.lists(st.none() | NODES, min_size=1, max_size=3).map(tuple),
    ),
    max_size=8,
)
GAINS = st.dictionaries(NODES, st.sampled_from([-MUST, 0, 1, 3, MUST]), min_size=1)


def cost(half: set[int], gains: dict[int, int], flows: list[Flow[int]]) -> int:
    """Casts, and gains that are not taken."""
    missed = sum(gain for node, gain in gains.items() if gain > 0 and node not in half)
    wrong = sum(-gain for node, gain in gains.items() if gain < 0 and node in half)
    casts = sum(
        any((reader in half) != (flow.maker in half) for reader in flow.readers) for flow in flows
    )
    return missed + wrong + CAST_COST * casts


@given(GAINS, FLOWS)
def test_no_other_choice_costs_less(gains: dict[int, int], flows: list[Flow[int]]) -> None:
    known = [
        Flow(
            flow.maker if flow.maker in gains else None,
            tuple(reader if reader in gains else None for reader in flow.readers),
        )
        for flow in flows
    ]

    half = nodes_in_half(gains, known)

    choices = (
        {node for node, taken in zip(gains, truths, strict=True) if taken}
        for truths in product([False, True], repeat=len(gains))
    )
    costs = {frozenset(choice): cost(choice, gains, known) for choice in choices}
    assert costs[frozenset(half)] == min(costs.values())
    fewest = min(len(choice) for choice, one in costs.items() if one == min(costs.values()))
    assert len(half) == fewest


def test_a_chain_between_products_computes_in_half_with_them() -> None:
    chain = [Flow(None, ("a",)), Flow("a", ("b",)), Flow("b", ("c",)), Flow("c", (None,))]

    assert nodes_in_half({"a": MUST, "b": 0, "c": MUST}, chain) == {"a", "b", "c"}
    assert nodes_in_half({"a": MUST, "b": -MUST, "c": MUST}, chain) == {"a", "c"}


def test_a_short_chain_in_float32_is_not_worth_two_casts() -> None:
    def flows(count: int) -> list[Flow[int]]:
        ends = [None, *range(count), None]
        return [Flow(a, (b,)) for a, b in pairwise(ends)]

    assert nodes_in_half(dict.fromkeys(range(4), 1), flows(4)) == set()
    assert nodes_in_half(dict.fromkeys(range(5), 1), flows(5)) == {0, 1, 2, 3, 4}


def test_a_value_costs_one_cast_however_many_read_it() -> None:
    readers = [Flow("a", (None, "b", "c", None)), Flow("b", (None,)), Flow("c", (None,))]

    assert nodes_in_half({"a": CAST_COST, "b": 0, "c": 0}, readers) == set()
    assert nodes_in_half({"a": CAST_COST + 1, "b": 0, "c": 0}, readers) == {"a"}
