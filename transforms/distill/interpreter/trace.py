"""Planning a graph for the shapes it is given, by running it once.

The first run evaluates what depends on constants and shapes alone, binds every other node to its
function and records the calls; a plan only repeats these. So the arithmetic of shapes costs
nothing later, and a condition that depends on shapes is decided once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir
from torch import Tensor

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.distill.interpreter import control
from trimton.transforms.distill.interpreter.dtypes import STORED_ONLY
from trimton.transforms.distill.interpreter.node import Kernel, NodeView, Results, described
from trimton.transforms.distill.interpreter.operators import OPERATORS
from trimton.transforms.distill.interpreter.operators.table import Builder
from trimton.transforms.distill.interpreter.plan import (
    ABSENT,
    Plan,
    Replace,
    Replacement,
    Step,
    store,
    with_deaths,
)
from trimton.transforms.distill.interpreter.reach import captured_values
from trimton.transforms.distill.interpreter.runtime_node import runtime_kernel
from trimton.transforms.graph.load import one_line
from trimton.transforms.graph.probe import RANDOM_OPERATORS
from trimton.transforms.graph.session import ORT_ERRORS
from trimton.transforms.graph.tensors import subgraphs_of

if TYPE_CHECKING:
    from trimton.transforms.distill.interpreter.program import Program

# Sees every node that is computed for the first time; may put other values in place of its own.
Observer = Callable[[ir.Node, Sequence[Tensor | None]], Sequence[Tensor | None]]

# These look at shapes only: what they make is known, whatever they are given.
_SHAPE_ONLY = frozenset({"Shape", "Size"})
_KERNEL_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    TypeError,
    ValueError,
    IndexError,
    *ORT_ERRORS,
)


class Trace:
    """The first run of a program on given shapes: computes the values and records the plan."""

    def __init__(
        self,
        program: Program,
        given: Sequence[Tensor],
        from_batch: bool,
        replace: Mapping[str, Replacement],
        observe: Observer | None,
    ) -> None:
        self.opsets, self.from_batch = program.opsets, from_batch
        self._program, self._replace, self._observe = program, replace, observe
        self._values: list[Tensor | None] = [None]
        self._slots: dict[ir.Value, int] = {}
        self._known: set[int] = {ABSENT}
        self._steps: list[Step | Replace] = []
        for value, tensor in zip(program.sources, given, strict=True):
            slot = self._slot(value)
            self._values[slot] = tensor
            if program.is_fixed(value) and value.name not in replace:
                self._known.add(slot)
            self._replaced(value)
        self._sources = tuple(self._slots[value] for value in program.sources)
        self.walk(program.nodes)

    def plan(self) -> Plan:
        """What later runs on these shapes do."""
        results = self._results()
        read = {slot for step in self._steps if isinstance(step, Step) for slot in step.inputs}
        kept = self._known & (read | set(results))
        constants = tuple(
            value if slot in kept else None for slot, value in enumerate(self._values)
        )
        return Plan(constants, self._sources, results, with_deaths(self._steps, results))

    def results(self) -> tuple[Tensor, ...]:
        """The wanted values of this run."""
        return tuple(self.value(value) for value in self._program.wanted)

    def value(self, value: ir.Value) -> Tensor:
        """The value computed in this run."""
        tensor = self._values[self._slots[value]]
        if tensor is None:
            raise ValueError(f"{value.name} was not computed")
        return tensor

    def is_known(self, value: ir.Value) -> bool:
        """Whether ``value`` is the same whenever this plan runs."""
        return self._slots[value] in self._known

    def alias(self, value: ir.Value, other: ir.Value) -> None:
        """``value`` is ``other`` under a second name."""
        if value.name not in self._replace:
            self._slots[value] = self._slots[other]
            return
        slot = self._slot(value)
        self._values[slot] = self.value(other)
        self._steps.append(Step(_same, (self._slots[other],), (slot,)))
        self._replaced(value)

    def walk(self, nodes: Iterable[ir.Node]) -> None:
        """Compute and record ``nodes``, in order."""
        for node in nodes:
            if not subgraphs_of(node):
                self._compute(node)
                self._free(node)
            elif not control.inline(node, self):
                self.call(node, *control.kernel_of(node, self))

    def body(self, graph: ir.Graph) -> Program:
        """The program of a body: its sources are the inputs of ``graph``, then what it captures."""
        captured = [value for value in captured_values(graph) if value not in graph.inputs]
        known = [value for value in captured if value in self._slots and self.is_known(value)]
        return self._program.body(graph, [*graph.inputs, *captured], known)

    def call(self, node: ir.Node, kernel: Kernel, read: Sequence[ir.Value | None]) -> None:
        """Compute and record one call that makes the outputs of ``node``."""
        inputs = tuple(ABSENT if value is None else self._slots[value] for value in read)
        made = self._checked(node, kernel, inputs)
        outputs = tuple(self._slot(value) for value in node.outputs)
        store(self._values, outputs, made)
        self.show(node)
        is_known = _is_constant(node) or all(slot in self._known for slot in inputs)
        if is_known and node.op_type not in RANDOM_OPERATORS and not self._is_replaced(node):
            self._known.update(outputs)
        else:
            self._steps.append(Step(kernel, inputs, outputs))
            for value in node.outputs:
                self._replaced(value)

    def show(self, node: ir.Node) -> None:
        """Let the observer see what ``node`` made, and take over what it puts in its place."""
        if self._observe is None:
            return
        slots = [self._slots[value] for value in node.outputs]
        seen = self._observe(node, [self._values[slot] for slot in slots])
        for slot, tensor in zip(slots, seen, strict=True):
            self._values[slot] = tensor

    def _compute(self, node: ir.Node) -> None:
        inputs = [None if value is None else self._slots[value] for value in node.inputs]
        tensors = [None if slot is None else self._values[slot] for slot in inputs]
        domain = "" if node.domain == "ai.onnx" else node.domain
        view = NodeView(
            node,
            self.opsets.get(domain, 1),
            known=tuple(
                tensor if slot in self._known else None
                for slot, tensor in zip(inputs, tensors, strict=True)
            ),
            ranks=tuple(0 if tensor is None else tensor.ndim for tensor in tensors),
            uses_batch_statistics=self.from_batch,
        )
        builder = OPERATORS.get((domain, node.op_type))
        if builder is None or _is_stored_only(tensors):
            kernel = runtime_kernel(node, self.opsets)
        else:
            kernel = _bound(builder, view)
        self.call(node, kernel, node.inputs)

    def _checked(self, node: ir.Node, kernel: Kernel, inputs: Sequence[int]) -> Results:
        try:
            return kernel(*[self._values[slot] for slot in inputs])
        except _KERNEL_ERRORS as error:
            raise InputError(
                f"{described(node)} cannot be computed on what it is given: {one_line(str(error))}."
            ) from error

    def _free(self, node: ir.Node) -> None:
        """Drop what nothing reads after ``node``, so that planning takes no more than a run."""
        for value in self._program.freed.get(node, ()):
            if (slot := self._slots[value]) not in self._known:
                self._values[slot] = None

    def _slot(self, value: ir.Value) -> int:
        if value not in self._slots:
            self._slots[value] = len(self._values)
            self._values.append(None)
        return self._slots[value]

    def _results(self) -> tuple[int, ...]:
        return tuple(self._slots[value] for value in self._program.wanted)

    def _is_replaced(self, node: ir.Node) -> bool:
        return any(value.name in self._replace for value in node.outputs)

    def _replaced(self, value: ir.Value) -> None:
        name = value.name or ""
        if name in self._replace:
            slot = self._slots[value]
            self._values[slot] = self._replace[name](self.value(value))
            self._steps.append(Replace(name, slot))


def _bound(builder: Builder, view: NodeView) -> Kernel:
    try:
        return builder(view)
    except KeyError as error:  # a mode, a number of axes or an activation that no table lists
        raise UnsupportedModelError(
            f"{described(view.node)} is of a form that has no function here ({error.args[0]!r})."
        ) from error


def _is_stored_only(tensors: Sequence[Tensor | None]) -> bool:
    """Whether torch has the types of ``tensors`` but no arithmetic for them."""
    types = {tensor.dtype for tensor in tensors if tensor is not None}
    return bool(types & STORED_ONLY) and not any(dtype.is_floating_point for dtype in types)


def _same(value: Tensor) -> Tensor:
    return value


def _is_constant(node: ir.Node) -> bool:
    return node.op_type in _SHAPE_ONLY and not node.domain
