"""What a model weighs: parameters, multiply-accumulates, bytes and nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from trimton.transforms.graph.fold import fold_small
from trimton.transforms.graph.macs import node_macs
from trimton.transforms.graph.session import MAX_EMBEDDED_BYTES, weight_bytes
from trimton.transforms.graph.shapes import bind_free_dims, static_shape
from trimton.transforms.graph.tensors import all_nodes, all_tensors, attribute_tensors, subgraphs_of
from trimton.transforms.report import ModelCost

# Tensors of these types carry shapes, indices, conditions and texts, not weights.
_NO_WEIGHTS = frozenset({ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING})


@dataclass(frozen=True)
class NodeCost:
    """What one node weighs: ``macs`` as in ModelCost, ``parameters`` of the weights it reads.

    ``depth`` is 0 in the main graph, and one more in each subgraph.
    """

    name: str
    op_type: str
    macs: int | None
    parameters: int
    depth: int = 0


def model_cost(model: ir.Model, free_dims: Mapping[str, int] | None = None) -> ModelCost:
    """Weigh ``model``; ``free_dims`` gives free input dimensions a size by name (default 1).

    Nodes are counted in all subgraphs, without Constant. Of the branches of an If the larger
    counts; the body of a Loop or Scan counts as often as it is known to run, at least once.
    """
    return ModelCost(
        parameters=_elements(all_tensors(model)),
        macs=_graph_macs(_with_shapes(model, free_dims or {}).graph),
        size_bytes=size_bytes(model),
        nodes=sum(node.op_type != "Constant" for node in all_nodes(model)),
    )


def node_costs(model: ir.Model, free_dims: Mapping[str, int] | None = None) -> tuple[NodeCost, ...]:
    """Weigh every node, subgraphs included, in graph order; see model_cost."""
    return tuple(_walk(_with_shapes(model, free_dims or {}).graph, depth=0))


def size_bytes(model: ir.Model) -> int:
    """The serialised size of ``model`` with its external data."""
    weights = weight_bytes(model)
    if weights < MAX_EMBEDDED_BYTES:
        return int(ir.serde.serialize_model(model).ByteSize())
    bare = model.clone()
    for graph in bare.graphs():
        graph.initializers.clear()
    return int(ir.serde.serialize_model(bare).ByteSize()) + weights


def _with_shapes(model: ir.Model, free_dims: Mapping[str, int]) -> ir.Model:
    """A copy of ``model`` with all sizes fixed, and shapes wherever they can be known.

    Shapes that the model computes become known step by step: folding the arithmetic that makes
    one of them lets the next be inferred.
    """
    copy = model.clone()
    bind_free_dims(copy, free_dims)
    while _graph_macs(copy.graph) is None and fold_small(copy):
        bind_free_dims(copy, free_dims)
    return copy


def _walk(graph: ir.Graph, depth: int) -> Iterator[NodeCost]:
    for node in graph:
        if node.op_type == "Constant":
            continue
        subgraphs = subgraphs_of(node)
        macs = 0 if subgraphs else node_macs(node)
        yield NodeCost(node.name or "", node.op_type, macs, _node_parameters(node), depth)
        for subgraph in subgraphs:
            yield from _walk(subgraph, depth + 1)


def _node_parameters(node: ir.Node) -> int:
    read = {id(value): value.const_value for value in node.inputs if value is not None}
    weights = (tensor for tensor in read.values() if tensor is not None)
    return _elements((*weights, *attribute_tensors(node)))


def _elements(tensors: Iterable[ir.TensorProtocol]) -> int:
    return sum(prod(t.shape.numpy()) for t in tensors if t.dtype not in _NO_WEIGHTS)


def _graph_macs(graph: ir.Graph) -> int | None:
    total = 0
    for node in graph:
        macs = _control_flow_macs(node) if subgraphs_of(node) else node_macs(node)
        if macs is None:
            return None
        total += macs
    return total


def _control_flow_macs(node: ir.Node) -> int | None:
    bodies: list[int] = []
    for subgraph in subgraphs_of(node):
        macs = _graph_macs(subgraph)
        if macs is None:
            return None
        bodies.append(macs)
    return max(bodies) * _repetitions(node)


def _repetitions(node: ir.Node) -> int:
    """How often the body of ``node`` runs, where that is known; else 1."""
    if node.op_type == "Loop" and node.inputs and node.inputs[0] is not None:
        trips = node.inputs[0].const_value
        return max(1, int(trips.numpy().reshape(-1)[0])) if trips is not None else 1
    if node.op_type == "Scan" and node.inputs:
        scanned = node.attributes.get_int("num_scan_inputs", 1) or 1
        axes = node.attributes.get_ints("scan_input_axes", [0] * scanned) or [0]
        shape = static_shape(node.inputs[len(node.inputs) - scanned])
        return max(1, shape[axes[0]]) if shape else 1
    return 1
