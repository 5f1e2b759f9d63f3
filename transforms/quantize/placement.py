"""Placement: which nodes compute in integers, exactly the set that the target's kernels take.

Layers (Conv, Gemm, MatMul) are quantised for themselves. What lies between (sums of residual
branches, pooling, Concat, moves of numbers) joins where all that it computes with comes out of
an 8-bit kernel anyway: in integers it costs less, and in float it would need a conversion on
every side. A value of a float operator is quantised only for the layers that read it.
"""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.transforms.graph.edit import constant, input_at, only_consumer
from trimton.transforms.graph.tensors import subgraphs_of
from trimton.transforms.quantize.kernels import Kernel, Role, weight_axis
from trimton.transforms.quantize.sharing import sites
from trimton.transforms.quantize.sites import Placement, WeightSite
from trimton.transforms.quantize.targets import Target
from trimton.transforms.report import Skipped


def place(model: ir.Model, target: Target, exclude: Collection[str] = ()) -> Placement:
    """What ``target`` computes in integers of the main graph of ``model``.

    Every node and value needs a name of its own, and values their types. ``exclude`` are names
    of nodes (``*`` matches any text) that stay in float; InputError for one that fits no node.
    """
    return _Placer(model, target, exclude).placement()


class _Placer:
    def __init__(self, model: ir.Model, target: Target, exclude: Collection[str]) -> None:
        self._graph, self._target = model.graph, target
        excluded = _excluded(model.graph, exclude)
        self._kernels: dict[ir.Node, Kernel] = {}
        self._reasons: dict[ir.Node, str] = {}
        for node in model.graph:
            reason = "excluded by name" if node in excluded else self._refusal(node)
            if reason is None:
                self._kernels[node] = target.kernels[node.op_type]
            else:
                self._reasons[node] = reason
        self._wants: dict[ir.Value, bool] = {}
        self._integers: set[ir.Value] = set()
        self._roles: dict[ir.Node, Role] = {}
        self._absorbed: set[ir.Node] = set()

    def placement(self) -> Placement:
        for node in self._graph:
            self._visit(node)
        joined = {*self._roles, *self._absorbed}
        values = [value for node in self._graph for value in self._encoded(node)]
        target = self._target
        dtypes = dict.fromkeys(values, target.activation)
        return Placement(
            activations=sites(values, self._roles, dtypes, target.symmetric),
            weights=tuple(site for node in self._roles for site in self._constants(node)),
            nodes=frozenset(node.name or "" for node in joined),
            skipped=tuple(
                Skipped(f"{node.op_type} {node.name}", self._why_float(node))
                for node in self._graph
                if node not in joined
            ),
        )

    def _refusal(self, node: ir.Node) -> str | None:
        """Why the target has no 8-bit kernel for ``node``; None if it has one."""
        kernel = None if node.domain else self._target.kernels.get(node.op_type)
        if subgraphs_of(node):
            return "control flow: its subgraphs stay in float"
        if kernel is None:
            return f"{self._target.name} has no 8-bit kernel for it"
        numbers = [input_at(node, index) for index in kernel.number_indices(node)]
        if any(value is None or not _is_float(value) for value in numbers):
            return "it does not compute on float32"
        return kernel.refusal(node)

    def _visit(self, node: ir.Node) -> None:
        """Let ``node`` join, all nodes before it being decided."""
        kernel = self._kernels.get(node)
        if kernel is None:
            if self._can_absorb(node):
                self._absorbed.add(node)
                self._integers.add(node.outputs[0])
            return
        role = kernel.role_in(node)
        if role in (Role.LINK, Role.MOVE) and not self._reads_integers(node, kernel):
            return
        self._roles[node] = role
        if role is Role.TABLE:
            return
        for output in node.outputs:
            if output.name and (not kernel.float_output or self._is_wanted(output)):
                self._integers.add(output)

    def _reads_integers(self, node: ir.Node, kernel: Kernel) -> bool:
        numbers = [v for v in _numbers(node, kernel) if constant(v) is None]
        return bool(numbers) and all(value in self._integers for value in numbers)

    def _can_absorb(self, node: ir.Node) -> bool:
        if node.op_type not in self._target.absorbed or node.domain or self._is_excluded(node):
            return False
        value = node.inputs[0]
        producer = None if value is None else value.producer()
        return (
            value is not None
            and producer is not None
            and self._roles.get(producer) in (Role.LAYER, Role.LINK)
            and value in self._integers
            and only_consumer(value) is node
            and all(constant(bound) is not None for bound in node.inputs[1:] if bound is not None)
        )

    def _is_excluded(self, node: ir.Node) -> bool:
        return self._reasons.get(node) == "excluded by name"

    def _is_wanted(self, value: ir.Value) -> bool:
        """Whether all that becomes of ``value``, moves aside, is read by layers in integers."""
        if value not in self._wants:
            uses = tuple(value.uses())
            self._wants[value] = (
                bool(uses)
                and not value.is_graph_output()
                and all(self._wants_integers(node, index) for node, index in uses)
            )
        return self._wants[value]

    def _wants_integers(self, node: ir.Node, index: int) -> bool:
        if node.graph is not self._graph or self._is_excluded(node):
            return False
        if node.op_type in self._target.absorbed and not node.domain:
            return self._is_wanted(node.outputs[0])
        kernel = self._kernels.get(node)
        if kernel is None or index not in kernel.number_indices(node):
            return False
        if kernel.role is Role.MOVE:
            return all(self._is_wanted(output) for output in node.outputs)
        return kernel.role is Role.LAYER

    def _encoded(self, node: ir.Node) -> list[ir.Value]:
        """The values that ``node`` reads or makes in integers."""
        if node in self._absorbed:
            return [node.outputs[0]]
        role = self._roles.get(node)
        if role is None or role is Role.TABLE:
            return []
        read = [v for v in _numbers(node, self._kernels[node]) if constant(v) is None]
        made = [
            output
            for output in node.outputs
            if output in self._integers and only_consumer(output) not in self._absorbed
        ]
        return [*read, *made]

    def _constants(self, node: ir.Node) -> list[WeightSite]:
        """The constants that ``node`` computes with."""
        kernel, role = self._kernels[node], self._roles[node]
        name = node.name or ""
        found: list[WeightSite] = []
        for index in kernel.number_indices(node):
            value = node.inputs[index]
            tensor = constant(value)
            if value is None or tensor is None:
                continue
            label = value.name or ""
            if role is Role.TABLE:
                found.append(WeightSite(name, label, 1, ir.DataType.INT8))
            elif role is Role.LAYER:
                bias = None if kernel.bias is None else input_at(node, kernel.bias)
                source = node.inputs[0]
                found.append(
                    WeightSite(
                        layer=name,
                        value=label,
                        axis=weight_axis(node, len(tensor.shape)),
                        dtype=ir.DataType.INT8,
                        kernel=kernel.order_in(node) if self._target.saturates else None,
                        activation=None if source is None else source.name,
                        bias=None if bias is None else bias.name,
                    )
                )
            else:
                found.append(WeightSite(name, label, None, self._target.activation))
        return found

    def _why_float(self, node: ir.Node) -> str:
        if node in self._reasons:
            return self._reasons[node]
        return "what it reads does not come from an 8-bit kernel"


def _numbers(node: ir.Node, kernel: Kernel) -> list[ir.Value]:
    values = [input_at(node, index) for index in kernel.number_indices(node)]
    return [value for value in values if value is not None]


def _is_float(value: ir.Value) -> bool:
    tensor = constant(value)
    return (value.dtype if tensor is None else tensor.dtype) == ir.DataType.FLOAT


def _excluded(graph: ir.Graph, patterns: Collection[str]) -> set[ir.Node]:
    found: set[ir.Node] = set()
    for pattern in patterns:
        matching = {node for node in graph if fnmatchcase(node.name or "", pattern)}
        if not matching:
            raise InputError(f"no node is named {pattern!r}; take it out of the exclusions.")
        found |= matching
    return found
