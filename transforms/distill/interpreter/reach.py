"""Which nodes a value depends on, and what a body reads from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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


def freed_after(
    nodes: Sequence[ir.Node], kept: Iterable[ir.Value]
) -> Mapping[ir.Node, tuple[ir.Value, ...]]:
    """By node, the values that no later one reads and that are not ``kept``.

    What bodies read and make is left out: the same value may go on under another name.
    """
    seen: set[ir.Value | None] = set(kept)
    for node in nodes:
        for body in subgraphs_of(node):
            seen.update((*captured_values(body), *node.inputs, *node.outputs))
    freed: dict[ir.Node, tuple[ir.Value, ...]] = {}
    for node in reversed(nodes):
        touched = dict.fromkeys(v for v in (*node.inputs, *node.outputs) if v is not None)
        freed[node] = tuple(value for value in touched if value not in seen)
        seen.update(touched)
    return freed


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
