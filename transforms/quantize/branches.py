"""The branches of If nodes, each as a model of its own: what it captures are its inputs.

A branch is quantised like any model, on the values that reach it from the samples, and put back.
Branches in branches follow by themselves. The bodies of Loop and Scan stay in float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from trimton.transforms.graph.edit import constant
from trimton.transforms.graph.taps import Feed, Taps

Batches = Callable[[], Iterable[Feed]]
_TAKEN = {"then_branch": True, "else_branch": False}


@dataclass(frozen=True)
class Branch:
    """Branch ``attribute`` of the If node called ``node``.

    ``model`` is a copy of it. ``captured`` are the values around it that it reads, by name; those
    that are no constants are inputs of ``model``.
    """

    node: str
    attribute: str
    condition: str
    model: ir.Model
    captured: tuple[str, ...]

    def feeds(self, around: ir.Model, batches: Batches) -> Iterator[Feed]:
        """What ``model`` gets when ``around``, the model that it stands in, runs ``batches``."""
        names = [value.name or "" for value in self.model.graph.inputs]
        taps = Taps(around, [self.condition, *names])
        for feed in batches():
            values = taps(feed)
            if bool(values[self.condition].reshape(())) == _TAKEN[self.attribute]:
                yield {name: values[name] for name in names}


def branches(model: ir.Model) -> Iterator[Branch]:
    """The branches of the If nodes of the main graph of ``model`` that can be models."""
    for node in model.graph:
        condition = node.inputs[0] if node.op_type == "If" and not node.domain else None
        if condition is None or constant(condition) is not None:
            continue
        for attribute in _TAKEN:
            branch = _extracted(node, attribute, condition.name or "", model)
            if branch is not None:
                yield branch


def put_back(branch: Branch, quantised: ir.Model, around: ir.Model) -> None:
    """Replace ``branch`` in ``around``, in place, by ``quantised``, made of the branch's model."""
    node = next(node for node in around.graph if node.name == branch.node)
    old, new = node.attributes[branch.attribute].as_graph(), quantised.graph
    sources = dict(zip(branch.captured, _captured(old), strict=True))
    for name, source in sources.items():
        own = next((value for value in new.inputs if value.name == name), None)
        own = own if own is not None else new.initializers.get(name)
        if own is not None:
            own.replace_all_uses_with(source)
    new.inputs.clear()
    for name in branch.captured:
        new.initializers.pop(name, None)
    _avoid_names_of(around, node, branch, new)
    node.attributes[branch.attribute] = ir.AttrGraph(branch.attribute, new)


def _extracted(node: ir.Node, attribute: str, condition: str, model: ir.Model) -> Branch | None:
    copy = node.attributes[attribute].as_graph().clone(allow_outer_scope_values=True)
    outer = _captured(copy)
    if any(value in outer or value.type is None for value in copy.outputs):
        return None
    graphs = _graphs(copy)
    for value in outer:
        tensor = constant(value)
        if tensor is None and value.dtype is None:
            return None
        own = ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=tensor)
        for user, index in tuple(value.uses()):
            if user.graph in graphs:
                user.replace_input_with(index, own)
        if tensor is None:
            copy.inputs.append(own)
        else:
            copy.register_initializer(own)
    copy.opset_imports.update(model.opset_imports)
    names = tuple(value.name or "" for value in outer)
    made = ir.Model(copy, ir_version=model.ir_version)
    return Branch(node.name or "", attribute, condition, made, names)


def _captured(graph: ir.Graph) -> list[ir.Value]:
    """The values from outside that nodes in ``graph`` read, in the order of their reading."""
    graphs = _graphs(graph)
    found: dict[ir.Value, None] = {}
    for node in ir.traversal.RecursiveGraphIterator(graph):
        for value in node.inputs:
            if value is not None and value.graph not in graphs:
                found[value] = None
    return list(found)


def _graphs(graph: ir.Graph) -> set[ir.Graph | ir.Function | None]:
    return {graph, *(node.graph for node in ir.traversal.RecursiveGraphIterator(graph))}


def _avoid_names_of(around: ir.Model, node: ir.Node, branch: Branch, new: ir.Graph) -> None:
    """Rename values of ``new`` that have the name of a value around it: none may hide another."""
    taken = {value.name for value in around.graph.inputs} | set(around.graph.initializers)
    taken |= {output.name for other in around.graph for output in other.outputs}
    own = list(new.initializers.values())
    own += [
        output
        for inner in ir.traversal.RecursiveGraphIterator(new)
        for output in inner.outputs
        if output.name
    ]
    for value in own:
        if value.name in taken:
            value.name = f"{node.name}/{branch.attribute}/{value.name}"
