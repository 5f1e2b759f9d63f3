"""Which nodes compute in integers, given those that could.

Layers do in any case. What lies between them does where all that it computes with comes out of
an 8-bit kernel anyway, and where a layer reads in integers what becomes of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from trimton.transforms.graph.edit import constant, only_consumer
from trimton.transforms.graph.shapes import known_dims
from trimton.transforms.quantize.roles import Kernel, Role


@dataclass
class Joined:
    """``roles`` of the nodes that compute in integers, in graph order; ``absorbed`` are the
    activation functions that their quantised outputs make superfluous. ``integers`` are the
    values that 8-bit kernels make."""

    roles: dict[ir.Node, Role] = field(default_factory=dict)
    absorbed: set[ir.Node] = field(default_factory=set)
    integers: set[ir.Value] = field(default_factory=set)


def join(
    graph: ir.Graph, kernels: Mapping[ir.Node, Kernel], absorbable: Collection[ir.Node]
) -> Joined:
    """Decide for every node of ``graph``.

    ``kernels`` holds the nodes that the target has 8-bit kernels for, ``absorbable`` the
    activation functions that a quantised output can stand for.
    """
    joining = _Joining(graph, kernels, absorbable)
    for node in graph:
        joining.visit(node)
    for node in reversed(list(graph)):
        joining.leave_if_useless(node)
    return joining.joined


def numbers(node: ir.Node, kernel: Kernel) -> list[ir.Value]:
    """The values that ``node`` computes with, constants included."""
    indices = kernel.number_indices(node)
    return [v for i in indices if i < len(node.inputs) and (v := node.inputs[i]) is not None]


class _Joining:
    def __init__(
        self,
        graph: ir.Graph,
        kernels: Mapping[ir.Node, Kernel],
        absorbable: Collection[ir.Node],
    ) -> None:
        self._graph, self._kernels, self._absorbable = graph, kernels, absorbable
        self._wanted: dict[ir.Value, bool] = {}
        self.joined = Joined()

    def visit(self, node: ir.Node) -> None:
        """Let ``node`` join or not, all nodes before it being decided."""
        joined = self.joined
        if self._can_be_absorbed(node):
            joined.absorbed.add(node)
            joined.integers.add(node.outputs[0])
        kernel = self._kernels.get(node)
        if kernel is None:
            return
        role = kernel.role_in(node)
        if role.joins_neighbours and not self._reads_integers(node, kernel):
            return
        joined.roles[node] = role
        if role is Role.TABLE:
            return
        for output in node.outputs:
            if output.name and (not kernel.float_output or self._is_wanted(output)):
                joined.integers.add(output)

    def leave_if_useless(self, node: ir.Node) -> None:
        """Take ``node`` out again if nobody reads it in integers, all later ones being decided."""
        joined = self.joined
        role = joined.roles.get(node)
        is_optional = node in joined.absorbed or (role is not None and role.joins_neighbours)
        if not is_optional or any(self._is_read_in_integers(output) for output in node.outputs):
            return
        source = None if node.inputs[0] is None else node.inputs[0].producer()
        if node in joined.absorbed and source is not None and joined.roles[source] is Role.LAYER:
            return  # that layer's kernel needs a quantised output
        joined.roles.pop(node, None)
        joined.absorbed.discard(node)
        joined.integers.difference_update(node.outputs)

    def _reads_integers(self, node: ir.Node, kernel: Kernel) -> bool:
        """Whether the operands of ``node`` are in integers, small ones that broadcast aside."""
        computed = [value for value in numbers(node, kernel) if constant(value) is None]
        full = [
            value
            for value in computed
            if not (kernel.broadcasts and _is_repeated(value, node.outputs[0]))
        ]
        return bool(full) and all(value in self.joined.integers for value in full)

    def _can_be_absorbed(self, node: ir.Node) -> bool:
        value = node.inputs[0] if node in self._absorbable else None
        producer = None if value is None else value.producer()
        return (
            value is not None
            and producer is not None
            and self.joined.roles.get(producer) in (Role.LAYER, Role.LINK)
            and value in self.joined.integers
            and only_consumer(value) is node
        )

    def _is_read_in_integers(self, value: ir.Value) -> bool:
        return any(
            node in self.joined.absorbed
            or (node in self.joined.roles and index in self._kernels[node].number_indices(node))
            for node, index in value.uses()
        )

    def _is_wanted(self, value: ir.Value) -> bool:
        """Whether all that becomes of ``value``, moves aside, is read by layers in integers."""
        if value not in self._wanted:
            uses = tuple(value.uses())
            self._wanted[value] = (
                bool(uses)
                and not value.is_graph_output()
                and all(self._wants_integers(node, index) for node, index in uses)
            )
        return self._wanted[value]

    def _wants_integers(self, node: ir.Node, index: int) -> bool:
        if node in self._absorbable:
            return self._is_wanted(node.outputs[0])
        kernel = self._kernels.get(node)
        if kernel is None or index not in kernel.number_indices(node):
            return False
        if kernel.role is Role.MOVE:
            return all(self._is_wanted(output) for output in node.outputs)
        return kernel.role is Role.LAYER


def _is_repeated(value: ir.Value, result: ir.Value) -> bool:
    """Whether ``value`` is repeated along an axis of ``result``, so it is known to be smaller."""
    small, large = known_dims(value), known_dims(result)
    if small is None or large is None or len(small) > len(large):
        return False
    padded = (1,) * (len(large) - len(small)) + small
    return any(a == 1 and b != 1 for a, b in zip(padded, large, strict=True))
