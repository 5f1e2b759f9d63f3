"""What is tuned together: a layer, or a block of layers between two narrow places.

A block ends where all that is left to compute depends on a single value: there its error is that
of everything before. So a residual block, an attention or a feed-forward part with its shortcut
is one; where layers simply follow each other, as many as three of them are.

Source: Li et al. 2021, "BRECQ: Pushing the Limit of Post-Training Quantization by Block
Reconstruction", arXiv:2102.05426.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from trimton.transforms.distill.reconstruct.layers import QuantisedLayer, before_rounding
from trimton.transforms.distill.reconstruct.settings import LAYER
from trimton.transforms.graph.edit import constant, only_consumer

# Layers that follow each other and are tuned together; more than the most are tuned one by one,
# as the samples would not tell so many weights from each other.
_CHAINED, _MOST = 3, 16
_CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear"})
# What follows a layer and belongs to it: every element by itself, or normalised with the others.
_FOLLOWERS = frozenset(
    {
        *("Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Sigmoid", "HardSigmoid", "HardSwish"),
        *("Tanh", "Erf", "Gelu", "Softplus", "Mish", "Add", "Sub", "Mul", "Div", "Pow", "Identity"),
        *("LayerNormalization", "RMSNormalization", "BatchNormalization"),
    }
)


@dataclass(frozen=True)
class Unit:
    """``layers`` between the values ``sources`` (or the inputs of the model) and ``targets``."""

    name: str
    layers: tuple[QuantisedLayer, ...]
    sources: tuple[str, ...]
    targets: tuple[str, ...]


def find_units(model: ir.Model, layers: Sequence[QuantisedLayer], unit: str) -> tuple[Unit, ...]:
    """The units of the quantised ``model``, from its inputs on; each layer is in one of them."""
    by_node = {layer.node: layer for layer in layers}
    nodes = tuple(model.graph)
    alone = {
        node.name or "": _layer_unit(node, by_node[node.name])
        for node in nodes
        if node.name in by_node
    }
    if unit == LAYER:
        return tuple(alone.values())
    return tuple(
        part
        for block in _joined(_blocks(nodes, by_node))
        for part in ([block] if len(block.layers) <= _MOST else _one_by_one(block, alone))
    )


def _one_by_one(block: Unit, alone: Mapping[str, Unit]) -> list[Unit]:
    return [alone[layer.node] for layer in block.layers]


def _layer_unit(node: ir.Node, layer: QuantisedLayer) -> Unit:
    """``node`` with the bias and the activation function behind it."""
    source = before_rounding(node.inputs[0])
    end = node.outputs[0]
    while (user := only_consumer(end)) is not None and _follows_alone(user):
        end = user.outputs[0]
    sources = () if source is None or source.is_graph_input() else (source.name or "",)
    return Unit(layer.node, (layer,), sources, (end.name or "",))


def _follows_alone(node: ir.Node) -> bool:
    """Whether ``node`` belongs to the layer before it and computes with nothing else."""
    computed = [v for v in node.inputs if v is not None and constant(v) is None]
    is_follower = node.op_type in _FOLLOWERS and not node.domain
    return is_follower and len({id(value) for value in computed}) == 1


def _blocks(nodes: Sequence[ir.Node], layers: Mapping[str, QuantisedLayer]) -> list[Unit]:
    """The stretches between narrow places with a layer in each, and what follows it inside."""
    found: list[Unit] = []
    source: tuple[str, ...] = ()
    begun = 0
    for place, value in [*_narrow_places(nodes, layers), (len(nodes) - 1, None)]:
        stretch = nodes[begun : place + 1]
        inside = tuple(layers[name] for n in stretch if (name := n.name or "") in layers)
        outputs = [v for node in stretch for v in node.outputs if v.is_graph_output()]
        ends = dict.fromkeys([*([value] if value is not None else []), *outputs])
        targets = tuple(end.name or "" for end in ends)
        if inside:
            found.append(Unit(inside[0].node, inside, source, targets))
        elif value is not None and found and all(_is_follower(node) for node in stretch):
            found[-1] = replace(found[-1], targets=targets)
        else:
            continue
        source, begun = (value.name or "" if value is not None else "",), place + 1
    return found


def _narrow_places(
    nodes: Sequence[ir.Node], layers: Container[str | None]
) -> Iterator[tuple[int, ir.Value]]:
    """Where one value alone is still to be read of all that layers read and make, and which."""
    number = {id(node): index for index, node in enumerate(nodes)}
    read = {before_rounding(node.inputs[0]) for node in nodes if node.name in layers}
    stream = {value for value in read if value is not None}
    last_read: dict[ir.Value, int] = {}
    for index, node in enumerate(nodes):
        if node.name in layers or any(value in stream for value in node.inputs if value):
            stream.update(node.outputs)
        for value in (*node.inputs, *node.outputs):
            if value in stream and value not in last_read:
                # One that a body reads, which is no node of this graph, lives to the end.
                reads = [number.get(id(use.node), len(nodes)) for use in value.uses()]
                last_read[value] = max(reads, default=-1)
        live = [value for value, last in last_read.items() if last > index]
        if len(live) == 1 and _is_float(live[0]):
            yield index, live[0]


def _is_float(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type not in _CONVERSIONS


def _is_follower(node: ir.Node) -> bool:
    return node.op_type in _FOLLOWERS | _CONVERSIONS and not node.domain


def _joined(blocks: Sequence[Unit]) -> list[Unit]:
    """``blocks``, those of a single layer that follow each other joined."""
    found: list[Unit] = []
    is_chain = False
    for block in blocks:
        is_single = len(block.layers) == 1
        if is_single and is_chain and len(found[-1].layers) < _CHAINED:
            before = found[-1]
            found[-1] = replace(
                before, layers=(*before.layers, *block.layers), targets=block.targets
            )
        else:
            found.append(block)
        is_chain = is_single
    return found
