"""Which nodes compute in half precision: a minimum cut between what must and what must not.

Every value that is made on one side and read on the other costs one Cast, however many nodes
read it there. A node that gains by half precision may be worth some Casts. The choice of least
cost is a minimum cut; of several the one with the fewest nodes in half precision is taken.

Source: Boykov and Kolmogorov 2004, on energies that cuts minimise; Ford and Fulkerson 1956.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

CAST_COST = 2
MUST = 1 << 28
_HALF, _SINGLE = "half", "single"
Node = TypeVar("Node", bound=Hashable)


@dataclass(frozen=True)
class Flow(Generic[Node]):
    """One value: the node that makes it and those that read it; None stands for float32."""

    maker: Node | None
    readers: tuple[Node | None, ...]


def nodes_in_half(gains: Mapping[Node, int], flows: Sequence[Flow[Node]]) -> set[Node]:
    """The nodes of ``gains`` that compute in half precision.

    The gain of a node is what half precision saves there, with CAST_COST as the price of a Cast;
    MUST and -MUST leave no choice.
    """
    index: dict[Hashable, int] = {_HALF: 0, _SINGLE: 1}
    edges: dict[tuple[int, int], int] = {}

    def at(name: Hashable) -> int:
        return index.setdefault(name, len(index))

    def side(node: Node | None) -> int:
        return at(_SINGLE) if node is None else at(("node", node))

    def join(start: int, end: int, capacity: int) -> None:
        if start != end:
            edges[start, end] = min(MUST, edges.get((start, end), 0) + capacity)

    for node, gain in gains.items():
        if gain > 0:
            join(at(_HALF), side(node), gain)
        elif gain < 0:
            join(side(node), at(_SINGLE), -gain)
    for number, flow in enumerate(flows):
        to_single, to_half = at(("to single", number)), at(("to half", number))
        join(side(flow.maker), to_single, CAST_COST)
        join(to_half, side(flow.maker), CAST_COST)
        for reader in flow.readers:
            join(to_single, side(reader), MUST)
            join(side(reader), to_half, MUST)
    reached = _reached(len(index), edges)
    return {node for node in gains if index.get(("node", node)) in reached}


def _reached(count: int, edges: Mapping[tuple[int, int], int]) -> set[int]:
    """What a maximum flow leaves reachable from the half side."""
    starts, ends = np.array(list(edges), np.int32).reshape(-1, 2).T
    capacities = np.array(list(edges.values()), np.int32)
    graph = csr_array((capacities, (starts, ends)), shape=(count, count))
    flow = maximum_flow(graph, 0, 1).flow
    rest = csr_array(graph - flow)
    rest.data = np.where(rest.data > 0, 1, 0).astype(np.int32)
    rest.eliminate_zeros()
    order = breadth_first_order(rest, 0, return_predecessors=False)
    return {int(place) for place in order}
