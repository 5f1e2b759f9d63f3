"""Common subexpressions: equal weights become one, equal nodes with equal inputs become one.

A subgraph sees the values of the graphs around it, so what is computed outside is reused inside.
Operators in quantised form are left alone (runtimes fuse a DequantizeLinear with its one
consumer), and so are random ones and those outside the standard, whose rules nobody knows here.
"""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Hashable

import onnx_ir as ir

from trimton.transforms.fuse.family import Family, Outcome
from trimton.transforms.graph.digest import attributes_digest, tensor_digest
from trimton.transforms.graph.edit import Editor, can_replace, erase, replace_value
from trimton.transforms.graph.probe import RANDOM_OPERATORS
from trimton.transforms.graph.quantised import is_quantised
from trimton.transforms.graph.tensors import subgraphs_of
from trimton.transforms.report import Skipped

_DOMAINS = frozenset({"", "ai.onnx.ml"})
_Weights = ChainMap[Hashable, ir.Value]
_Nodes = ChainMap[Hashable, ir.Node]


def _merge_weights(editor: Editor) -> Outcome:
    twins = Counter(
        _kind(value) for graph in editor.model.graphs() for value in graph.initializers.values()
    )
    return Outcome(_merge_weights_in(editor.model.graph, ChainMap(), twins))


def _merge_weights_in(graph: ir.Graph, seen: _Weights, twins: Counter[Hashable]) -> int:
    count = 0
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        # Most weights have a shape of their own: those need no hashing.
        if tensor is None or value.is_graph_input() or twins[_kind(value)] < 2:
            continue
        key = tensor_digest(tensor)
        first = seen.setdefault(key, value)
        if first is not value and not value.is_graph_output():
            value.replace_all_uses_with(first)
            del graph.initializers[name]
            count += 1
    for node in graph:
        for subgraph in subgraphs_of(node):
            count += _merge_weights_in(subgraph, seen.new_child(), twins)
    return count


def _kind(value: ir.Value) -> Hashable:
    tensor = value.const_value
    return None if tensor is None else (tensor.dtype, tuple(tensor.shape))


def _merge_nodes(editor: Editor) -> Outcome:
    skipped: list[Skipped] = []
    count = _merge_nodes_in(editor.model.graph, ChainMap(), skipped)
    return Outcome(count, tuple(skipped))


def _merge_nodes_in(graph: ir.Graph, seen: _Nodes, skipped: list[Skipped]) -> int:
    count = 0
    for node in list(graph):
        subgraphs = subgraphs_of(node)
        for subgraph in subgraphs:
            count += _merge_nodes_in(subgraph, seen.new_child(), skipped)
        if subgraphs or not _is_pure(node):
            continue
        first = seen.setdefault(_key(node), node)
        if first is node:
            continue
        pairs = [(old, new) for old, new in zip(node.outputs, first.outputs, strict=True)]
        if all(can_replace(old, new) for old, new in pairs):
            for old, new in pairs:
                replace_value(old, new)
            erase(node)
            count += 1
        else:
            skipped.append(
                Skipped(
                    f"{node.op_type} ({node.name})",
                    f"it computes the same as {first.name}, but both are outputs of a graph",
                )
            )
    return count


def _is_pure(node: ir.Node) -> bool:
    return (
        node.domain in _DOMAINS
        and node.op_type not in RANDOM_OPERATORS
        and node.op_type != "Dropout"
        and not is_quantised(node)
    )


def _key(node: ir.Node) -> Hashable:
    return (
        node.op_identifier(),
        tuple(None if value is None else id(value) for value in node.inputs),
        tuple(bool(output.name) for output in node.outputs),
        attributes_digest(node),
    )


EQUAL_WEIGHTS = Family("equal-weights", "stored equal weights once", _merge_weights)
EQUAL_NODES = Family("equal-nodes", "computed common subexpressions once", _merge_nodes)
