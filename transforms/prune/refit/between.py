"""What lies between two linear layers, where that is a function of each element by itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from trimton.transforms.graph.edit import Array, constant
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.prune.ties import Layer

_ELEMENTWISE = frozenset(
    [
        "Relu",
        "LeakyRelu",
        "PRelu",
        "ThresholdedRelu",
        "Elu",
        "Celu",
        "Selu",
        "Gelu",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
        "Swish",
        "Mish",
        "Tanh",
        "Softplus",
        "Softsign",
        "Erf",
        "Clip",
        "Identity",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "BatchNormalization",
    ]
)
# The step of a difference quotient, as a share of the values' root mean square.
_STEP = 1e-2
_SMALLEST = 1e-6


class Between:
    """The function from what ``producer`` makes to what ``consumer`` reads, in ``model``.

    Only where ``producer`` is the ``producer_of`` the consumer.
    """

    def __init__(self, model: ir.Model, producer: Layer, consumer: Layer) -> None:
        start, end = producer.node.outputs[0], consumer.activation
        self._session = None
        if start is not end:
            self._session = open_session(_part(model, start, end), stop_spinning=True)
        self._input, self._output = f"{start.name}_given", end.name or ""
        self._dtype = (start.dtype or ir.DataType.FLOAT).numpy()

    def __call__(self, made: Array) -> Array:
        """What the consumer reads when the producer makes ``made``."""
        if self._session is None:
            return made
        given = {self._input: made.astype(self._dtype)}
        read: Array = run(self._session, given)[self._output]
        return read.astype(made.dtype)

    def slope(self, made: Array) -> Array:
        """The derivative at ``made``, element by element, as a difference quotient."""
        if self._session is None:
            return np.ones_like(made)
        step = made.dtype.type(_STEP * np.sqrt(np.mean(made**2)) + _SMALLEST)
        slope: Array = (self(made + step) - self(made - step)) / (2 * step)
        return slope


def producer_of(consumer: Layer, layers: Mapping[int, Layer]) -> Layer | None:
    """The layer of which ``consumer`` reads an elementwise function, and nobody else anything.

    ``layers`` are the candidates by the id of what they make. None where there is no such layer.
    """
    value = consumer.activation
    while (found := layers.get(id(value))) is None:
        node = value.producer()
        given = [] if node is None or node.op_type not in _ELEMENTWISE else node.inputs
        moving = [each for each in given if each is not None and constant(each) is None]
        if not moving:
            return None
        value = moving[0]
    return found if _is_between(found, consumer) else None


def _is_between(producer: Layer, consumer: Layer) -> bool:
    start, graph = producer.node.outputs[0], consumer.node.graph
    if graph is None or start.is_graph_output():
        return False
    inside = {id(start)}
    for node in graph:
        read = [value for value in node.inputs if value is not None and id(value) in inside]
        if not read:
            continue
        if node is consumer.node and read == [consumer.activation]:
            continue
        if not _is_elementwise(node, inside, start):
            return False
        inside.add(id(node.outputs[0]))
    return True


def _is_elementwise(node: ir.Node, inside: set[int], start: ir.Value) -> bool:
    """Whether ``node`` keeps the shape and reads values from ``inside`` and constants only."""
    given = [value for value in node.inputs if value is not None]
    return (
        not node.domain
        and node.op_type in _ELEMENTWISE
        and len(node.outputs) == 1
        and node.outputs[0].shape == start.shape
        and not node.outputs[0].is_graph_output()
        and all(id(value) in inside or constant(value) is not None for value in given)
    )


def _part(model: ir.Model, start: ir.Value, end: ir.Value) -> ir.Model:
    """A model of the nodes from ``start`` to ``end`` alone."""
    copy = model.clone()
    named = {value.name: value for node in copy.graph for value in node.outputs}
    given = ir.Value(name=f"{start.name}_given", type=start.type)
    named[start.name].replace_all_uses_with(given)
    copy.graph.inputs.clear()
    copy.graph.inputs.append(given)
    copy.graph.outputs.clear()
    copy.graph.outputs.append(named[end.name])
    RemoveUnusedNodesPass()(copy)
    return copy
