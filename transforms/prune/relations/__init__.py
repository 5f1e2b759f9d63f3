"""The table of relations, by domain and operator, and how it is applied to a graph."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from trimton.transforms.graph.edit import opset_of
from trimton.transforms.graph.shapes import known_dims
from trimton.transforms.graph.tensors import subgraphs_of
from trimton.transforms.prune.index_space import IndexSpace, graph_values
from trimton.transforms.prune.relations import (
    attention,
    convolution,
    elementwise,
    movement,
    normalisation,
    product,
    recurrent,
    reduction,
    reshape,
)
from trimton.transforms.prune.relations.relation import Relation
from trimton.transforms.prune.ties import Ties, constant_values

RELATIONS: Mapping[tuple[str, str], Relation] = {
    **attention.RELATIONS,
    **convolution.RELATIONS,
    **elementwise.RELATIONS,
    **movement.RELATIONS,
    **normalisation.RELATIONS,
    **product.RELATIONS,
    **recurrent.RELATIONS,
    **reduction.RELATIONS,
    **reshape.RELATIONS,
}


def collect_ties(model: ir.Model) -> Ties:
    """All ties of the main graph of ``model``, whose shapes are inferred.

    Inputs, outputs, what subgraphs read, and everything around an operator without a relation are
    frozen.
    """
    graph = model.graph
    ties = Ties(IndexSpace(graph_values(graph)), constant_values(graph), opset_of(model))
    for value in graph.inputs:
        ties.freeze_value(value, "it is an input of the model")
    for value in graph.outputs:
        ties.freeze_value(value, "it is an output of the model")
    for node in graph:
        _apply(node, ties)
    return ties


def _apply(node: ir.Node, ties: Ties) -> None:
    if subgraphs_of(node):
        _freeze_around_body(node, ties)
        return
    if node.op_type == "Constant":
        ties.freeze_node(node, "it is a Constant node")
        return
    relation = RELATIONS.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
    if relation is None:
        ties.freeze_node(node, f"{node.op_type} has no relation in the table")
    elif any(known_dims(value) is None for value in _arrays(node)):
        ties.freeze_node(node, f"the shape of a value at {node.op_type} is not known")
    else:
        relation(node, ties)


def _arrays(node: ir.Node) -> list[ir.Value]:
    """What ``node`` reads and makes, without what is left out or read by nobody."""
    made = [value for value in node.outputs if value.uses() or value.is_graph_output()]
    return [*(value for value in node.inputs if value is not None), *made]


def _freeze_around_body(node: ir.Node, ties: Ties) -> None:
    reason = f"the body of {node.op_type} uses it"
    ties.freeze_node(node, reason)
    for graph in subgraphs_of(node):
        for inner in ir.traversal.RecursiveGraphIterator(graph):
            for value in inner.inputs:
                ties.freeze_value(value, reason)
        for value in graph.outputs:  # a body may hand a value from outside straight on
            ties.freeze_value(value, reason)
