"""Small, safe changes to a graph: what every rewrite needs, in one place."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trimton.transforms.graph.tensors import all_nodes

Array = npt.NDArray[Any]


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of ``value`` where it is the same in every run, else None.

    An initializer that is also an input can be overridden, so it is no constant.
    """
    if value is None:
        return None
    if value.is_initializer():
        return None if value.is_graph_input() else value.const_value
    node = value.producer()
    if node is not None and node.op_type == "Constant" and not node.domain:
        attribute = node.attributes.get("value")
        return attribute.as_tensor() if attribute is not None else None
    return None


def constant_array(value: ir.Value | None) -> Array | None:
    """``constant`` as an array."""
    tensor = constant(value)
    return None if tensor is None else tensor.numpy()


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads ``value``, once; None if there are more uses or it is an output."""
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """Input ``index`` of ``node``; None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def opset_of(model: ir.Model) -> int:
    """The version of the standard operator set (0 where the model uses none of it)."""
    return model.opset_imports.get("", 0)


def can_replace(old: ir.Value, new: ir.Value) -> bool:
    """Whether ``new`` can stand wherever ``old`` stands.

    An output of a graph keeps its name and must be made by a node of that very graph, which
    does not serve as another output already.
    """
    if not old.is_graph_output():
        return True
    return new.producer() is not None and new.graph is old.graph and not new.is_graph_output()


def replace_value(old: ir.Value, new: ir.Value) -> None:
    """Put ``new`` wherever ``old`` stands; where that is an output, ``new`` takes its name.

    Requires ``can_replace(old, new)``.
    """
    if old.is_graph_output():
        new.name, new.type, new.shape = old.name, old.type, old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def erase(node: ir.Node) -> None:
    """Remove ``node``, whose outputs nothing uses any more."""
    if node.graph is not None:
        node.graph.remove(node, safe=True)


class Editor:
    """Changes to one model that need fresh names: ``opset`` is its standard operator set."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.opset = opset_of(model)
        self._names = Counter(_value_names(model))

    def fresh_name(self, hint: str) -> str:
        """``hint``, or ``hint_2``, ``hint_3``...: a name that no value of the model has."""
        name, number = hint, 1
        while self._names[name]:
            number += 1
            name = f"{hint}_{number}"
        self._names[name] += 1
        return name

    def is_ambiguous(self, name: str) -> bool:
        """Whether several values, in graphs that cannot see each other, have this name."""
        return self._names[name] > 1

    def add_constant(self, graph: ir.Graph, hint: str, array: Array) -> ir.Value:
        """A new initializer of ``graph``, named after ``hint``."""
        name = self.fresh_name(hint)
        tensor = _tensor(array, name)
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
            const_value=tensor,
        )
        graph.register_initializer(value)
        return value

    def set_constant(self, node: ir.Node, index: int, array: Array, hint: str) -> None:
        """Make ``array`` the constant input ``index`` of ``node``.

        An initializer that only this input reads is changed; one that others share is left as
        it is, and the node gets its own copy. ``hint`` names an input that was left out.
        """
        graph = node.graph
        if graph is None:
            raise ValueError("the node belongs to no graph")
        old = input_at(node, index)
        if old is not None and old.is_initializer() and only_consumer(old) is node:
            old.const_value = _tensor(array, old.name or hint)
            old.shape = ir.Shape(array.shape)
            old.type = ir.TensorType(old.const_value.dtype)
            return
        name = hint if old is None or old.name is None else old.name
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        node.replace_input_with(index, self.add_constant(graph, name, array))


def _tensor(array: Array, name: str) -> ir.TensorProtocol:
    if array.dtype == object:
        texts = [s if isinstance(s, bytes) else str(s).encode() for s in array.reshape(-1)]
        return ir.StringTensor(texts, shape=ir.Shape(array.shape), name=name)
    return ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)


def _value_names(model: ir.Model) -> list[str]:
    values: list[ir.Value] = []
    for graph in model.graphs():
        values.extend(graph.inputs)
        values.extend(v for v in graph.initializers.values() if not v.is_graph_input())
    for node in all_nodes(model):
        values.extend(node.outputs)
    return [value.name for value in values if value.name]
