"""Blocks that a network can run without: what a residual sum adds to what it passes on.

A sum ``sink = source + branch(source)`` of equal shapes can be replaced by ``source``. That is
known from the graph alone: one side of the sum is computed from the other. Where both the sum and
its source are normalised (the "post-norm" transformer), the normalised value is what is passed on.
An attention block and the block without attention that follows it are a transformer layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import onnx_ir as ir

from trimton.transforms.graph.edit import constant, only_consumer
from trimton.transforms.graph.macs import node_macs
from trimton.transforms.graph.shapes import bind_free_dims, known_dims
from trimton.transforms.graph.tensors import subgraphs_of

RESIDUAL, ATTENTION, FEED_FORWARD = "residual block", "attention", "feed-forward"
LAYER = "transformer layer"
_ATTENTIONS = frozenset({"Attention", "MultiHeadAttention", "Softmax"})
_LAYERS = frozenset(
    {
        "Attention",
        "Conv",
        "ConvTranspose",
        "FusedConv",
        "FusedMatMul",
        "GRU",
        "Gemm",
        "LSTM",
        "MatMul",
    }
)
_FLOATS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)
_SUMS = frozenset({"Add", "Sum"})
_NORMALISATIONS = frozenset({"LayerNormalization", "RMSNormalization"})


@dataclass(frozen=True)
class Block:
    """What stands between ``source`` and ``sink``, values of the same shape.

    ``nodes`` are those that nothing else needs, ``layers`` the names of those with weights;
    ``parameters`` are the elements of their weights, ``macs`` their multiply-accumulates for one
    sample with all free dimensions 1 (None where a shape is not known).
    """

    name: str
    kind: str
    source: ir.Value
    sink: ir.Value
    nodes: tuple[ir.Node, ...]
    layers: tuple[str, ...]
    parameters: int
    macs: int | None


def find_blocks(model: ir.Model) -> tuple[Block, ...]:
    """The removable blocks of the main graph of ``model``, whose shapes are inferred, in order.

    A transformer layer comes after the two blocks that it consists of.
    """
    graph = _Graph(model)
    found: list[Block] = []
    attention: dict[int, Block] = {}
    for node in graph.nodes:
        for source in graph.passed_on(node):
            block = graph.block(source, _normalised(source, node.outputs[0]))
            if block is None:
                continue
            before = attention.get(id(source))
            if block.kind == ATTENTION:
                attention[id(block.sink)] = block
            elif before is not None:
                block = replace(block, kind=FEED_FORWARD)
            found.append(block)
            layer = None if before is None else graph.block(before.source, block.sink)
            if layer is not None and block.kind == FEED_FORWARD:
                found.append(replace(layer, kind=LAYER))
    return tuple(found)


class _Graph:
    """What must be known of a graph to find blocks in it: order, ancestry, cost of nodes."""

    def __init__(self, model: ir.Model) -> None:
        self.nodes = tuple(model.graph)
        self._number = {id(node): number for number, node in enumerate(self.nodes)}
        self._ancestors = self._collect_ancestors()
        sized = model.clone()
        bind_free_dims(sized, {})
        self._macs = {
            id(node): node_macs(twin) for node, twin in zip(self.nodes, sized.graph, strict=True)
        }

    def _collect_ancestors(self) -> list[int]:
        """For every node the set of nodes that it depends on, as the bits of a number."""
        ancestors: list[int] = []
        for number, node in enumerate(self.nodes):
            bits = 1 << number
            for value in _reads(node):
                producer = value.producer()
                if producer is not None and id(producer) in self._number:
                    bits |= ancestors[self._number[id(producer)]]
            ancestors.append(bits)
        return ancestors

    def depends_on(self, value: ir.Value, source: ir.Value) -> bool:
        """Whether ``value`` is computed from ``source``, which another node makes."""
        node, origin = value.producer(), source.producer()
        if node is None or origin is None or value is source:
            return False
        return bool(self._ancestors[self._number[id(node)]] >> self._number[id(origin)] & 1)

    def passed_on(self, node: ir.Node) -> Iterator[ir.Value]:
        """The operand of a sum from which the other operand is computed, both of its shape."""
        if node.op_type not in _SUMS or node.domain or len(node.inputs) != 2:
            return
        one, other = node.inputs
        dims = known_dims(node.outputs[0])
        if one is None or other is None or not dims:
            return
        if not known_dims(one) == known_dims(other) == dims:
            return
        for source, branch in ((one, other), (other, one)):
            if self.depends_on(branch, source):
                yield source

    def block(self, source: ir.Value, sink: ir.Value) -> Block | None:
        """The block between two values; None where no layer goes with it."""
        end = sink.producer()
        if end is None or sink.is_graph_output():
            return None
        nodes = self._needed_by(end, source)
        layers = tuple(_name(node) for node in nodes if _is_layer(node))
        if not layers:
            return None
        macs = [self._macs[id(node)] for node in nodes]
        return Block(
            name=_name(end),
            kind=ATTENTION if any(node.op_type in _ATTENTIONS for node in nodes) else RESIDUAL,
            source=source,
            sink=sink,
            nodes=nodes,
            layers=layers,
            parameters=_parameters(nodes),
            macs=None if None in macs else sum(count or 0 for count in macs),
        )

    def _needed_by(self, end: ir.Node, source: ir.Value) -> tuple[ir.Node, ...]:
        """``end`` and all nodes that only it needs, in order; not what makes ``source``."""
        gone = {id(end)}
        for node in reversed(self.nodes[: self._number[id(end)]]):
            values = node.outputs
            used = [user for value in values for user in value.consumers()]
            is_needed = any(value.is_graph_output() or value is source for value in values)
            if not is_needed and used and all(id(user) in gone for user in used):
                gone.add(id(node))
        return tuple(node for node in self.nodes if id(node) in gone)


def _normalised(source: ir.Value, total: ir.Value) -> ir.Value:
    """What is passed on: the normalised sum where the source is normalised too, else the sum."""
    producer, user = source.producer(), only_consumer(total)
    if producer is None or user is None or user.op_type not in _NORMALISATIONS:
        return total
    return user.outputs[0] if producer.op_type == user.op_type else total


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """What ``node`` and the bodies in it read."""
    yield from (value for value in node.inputs if value is not None)
    for graph in subgraphs_of(node):
        for inner in ir.traversal.RecursiveGraphIterator(graph):
            yield from (value for value in inner.inputs if value is not None)
        yield from graph.outputs  # a body may hand a value from outside straight on


def _is_layer(node: ir.Node) -> bool:
    return node.op_type in _LAYERS and any(constant(value) is not None for value in node.inputs)


def _parameters(nodes: Sequence[ir.Node]) -> int:
    weights = {
        id(value): prod(value.const_value.shape.numpy())
        for node in nodes
        for value in node.inputs
        if value is not None and value.const_value is not None and value.dtype in _FLOATS
    }
    return sum(weights.values())


def _name(node: ir.Node) -> str:
    return node.name or node.outputs[0].name or node.op_type
