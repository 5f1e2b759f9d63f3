"""LSTM, GRU and RNN: one hidden unit is one row of every gate, and one column of R."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from trimton.transforms.graph.edit import input_at
from trimton.transforms.prune.relations.relation import Relation
from trimton.transforms.prune.ties import Layer, Ties

_STEPS = "a recurrence runs over it"
_DIRECTIONS = "it counts directions"


def recurrent(node: ir.Node, ties: Ties) -> None:
    """W [D, gates*H, I], R [D, gates*H, H], B [D, 2*gates*H], P [D, 3*H], states [D, B, H].

    X is [S, B, I], Y is [S, D, B, H]. The order with the batch first (``layout`` 1) is left alone.
    """
    if node.attributes.get_int("layout", 0):
        ties.freeze_node(node, f"a {node.op_type} with the batch first")
        return
    data, weight, recurrence = node.inputs[:3]
    hidden = ties.indices(recurrence, 2)
    ties.tie_axes(data, 2, weight, 2)
    blocks = [(weight, 1), (recurrence, 1), (input_at(node, 3), 1), (input_at(node, 7), 1)]
    for value, axis in blocks:
        if value is not None:
            indices = ties.indices(value, axis)
            ties.tie(indices.reshape(-1, max(hidden.size, 1)), hidden)
    states = [input_at(node, 5), input_at(node, 6), *node.outputs[1:]]
    for state in states:
        if state is not None and ties.rank(state):
            ties.tie(ties.indices(state, 2), hidden)
            ties.tie_axes(state, 1, data, 1)
            ties.freeze(ties.indices(state, 0), _DIRECTIONS)
    for value in (weight, recurrence, input_at(node, 3), input_at(node, 7)):
        ties.freeze(ties.indices(value, 0), _DIRECTIONS)
    sequence = node.outputs[0]
    if ties.rank(sequence):
        ties.tie(ties.indices(sequence, 3), hidden)
        ties.tie_axes(sequence, 2, data, 1)
        ties.freeze(ties.indices(sequence, 1), _DIRECTIONS)
        ties.freeze(ties.indices(sequence, 0), _STEPS)
    ties.freeze(ties.indices(data, 0), _STEPS)
    ties.freeze_value(input_at(node, 4), "it holds lengths")
    if weight is not None and recurrence is not None and data is not None:
        ties.layers.append(Layer(node, weight, 1, 2, data, 2))
        ties.layers.append(Layer(node, recurrence, 1, 2, sequence, 3))


RELATIONS: Mapping[tuple[str, str], Relation] = {
    ("", "GRU"): recurrent,
    ("", "LSTM"): recurrent,
    ("", "RNN"): recurrent,
}
