"""Which nodes a value depends on, and what a body reads from outside."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from trimton.transforms.graph.tensors import subgraphs_of


def needed_nodes(graph: ir.Graph, wanted: Iterable[ir.Value]) -> tuple[ir.Node, ...]:
    """The nodes of ``graph`` that the values ``wanted`` depend on, in its order."""
    needed, pending = set[ir.Node](), list(wanted)
    while pending:
        node = pending.pop().producer()
        if node is None or node in needed or node.graph is not graph:
            continue
        needed.add(node)
        pending.extend(value for value in node.inputs if value is not None)
        for body in subgraphs_of(node):
            pending.extend(captured_values(body))
    return tuple(node for node in graph if node in needed)


def captured_values(graph: ir.Graph) -> tuple[ir.Value, ...]:
    """What ``graph`` and those in it read, and neither make nor are given; also constants."""
    made: set[ir.Value] = set(graph.inputs)
    read: dict[ir.Value, None] = {}
    for node in ir.traversal.RecursiveGraphIterator(graph):
        for body in subgraphs_of(node):
            made.update(body.inputs)
            read.update(dict.fromkeys(body.outputs))
        made.update(node.outputs)
        read.update(dict.fromkeys(value for value in node.inputs if value is not None))
    read.update(dict.fromkeys(graph.outputs))
    return tuple(value for value in read if value not in made)
