"""Walking and replacing the constant tensors of a model, wherever they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

TensorMap = Callable[[ir.TensorProtocol], ir.TensorProtocol]


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of the model, subgraphs and functions included, in graph order."""
    yield from ir.traversal.RecursiveGraphIterator(model.graph)
    for function in model.functions.values():
        yield from ir.traversal.RecursiveGraphIterator(function)


def subgraphs_of(node: ir.Node) -> tuple[ir.Graph, ...]:
    """The graphs that ``node`` carries as attributes (If, Loop, Scan), in attribute order."""
    graphs: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            graphs.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs.extend(attribute.as_graphs())
    return tuple(graphs)


def attribute_tensors(node: ir.Node) -> Iterator[ir.TensorProtocol]:
    """The dense tensors that ``node`` carries as attributes."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.TENSOR:
            yield attribute.as_tensor()
        elif attribute.type == ir.AttributeType.TENSORS:
            yield from attribute.as_tensors()


def all_tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every constant tensor of the model: initializers of all graphs, tensors in attributes."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
    for node in all_nodes(model):
        yield from attribute_tensors(node)


def map_tensors(model: ir.Model, function: TensorMap) -> None:
    """Replace every constant tensor of the model by ``function(tensor)``, in place."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = function(value.const_value)
    for node in all_nodes(model):
        for name, attribute in list(node.attributes.items()):
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.TENSOR:
                old = attribute.as_tensor()
                if (new := function(old)) is not old:
                    node.attributes[name] = ir.AttrTensor(name, new)
            elif attribute.type == ir.AttributeType.TENSORS:
                tensors = attribute.as_tensors()
                mapped = [function(tensor) for tensor in tensors]
                if any(new is not old for new, old in zip(mapped, tensors, strict=True)):
                    node.attributes[name] = ir.AttrTensors(name, mapped)
