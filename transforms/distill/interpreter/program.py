"""A graph that is run again and again: one plan for the shapes of what it is given."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir
import torch
from torch import Tensor

from trimton.transforms.distill.interpreter.plan import Plan, Replacement
from trimton.transforms.distill.interpreter.reach import freed_after, needed_nodes
from trimton.transforms.distill.interpreter.trace import Observer, Trace

_MAX_PLANS = 32


class Program:
    """One graph, or a part of it: ``wanted`` values computed from ``sources``.

    ``fixed`` are sources that are the same in every run: what depends on them alone is computed
    when planning. The shapes of sources that are no constants decide which plan fits.
    """

    def __init__(
        self,
        graph: ir.Graph,
        wanted: Sequence[ir.Value],
        sources: Sequence[ir.Value],
        *,
        opsets: Mapping[str, int],
        fixed: Collection[ir.Value] = (),
    ) -> None:
        self.wanted, self.sources, self.opsets = wanted, sources, opsets
        self.nodes = needed_nodes(graph, wanted)
        self.freed = freed_after(self.nodes, wanted)
        self._fixed = frozenset(fixed)
        self._keyed = tuple(
            index for index, value in enumerate(sources) if not value.is_initializer()
        )
        self._plans: OrderedDict[tuple[object, ...], Plan] = OrderedDict()

    def forget(self) -> None:
        """Drop all plans: constants were converted or moved."""
        self._plans.clear()

    def run(
        self,
        given: Sequence[Tensor],
        *,
        from_batch: bool = False,
        replace: Mapping[str, Replacement] | None = None,
        observe: Observer | None = None,
    ) -> tuple[Tensor, ...]:
        """The wanted values for ``given``, in the order of the sources.

        ``from_batch`` takes statistics from the batch; ``replace`` puts a function of a named
        value in its place for all that reads it. Raises UnsupportedModelError or InputError.
        """
        replace = replace or {}
        shapes = [(given[index].shape, given[index].dtype) for index in self._keyed]
        # Constants that were computed in half precision must not serve in single.
        key = (from_batch, torch.is_autocast_enabled("cpu"), frozenset(replace), *shapes)
        plan = self._plans.get(key)
        if plan is not None and observe is None:
            self._plans.move_to_end(key)
            return plan.run(given, replace)
        trace = Trace(self, given, from_batch, replace, observe)
        self._plans[key] = trace.plan()
        if len(self._plans) > _MAX_PLANS:
            self._plans.popitem(last=False)
        return trace.results()

    def body(
        self, graph: ir.Graph, sources: Sequence[ir.Value], fixed: Collection[ir.Value]
    ) -> Program:
        """The program of a graph inside this one."""
        return Program(graph, graph.outputs, sources, opsets=self.opsets, fixed=fixed)

    def is_fixed(self, value: ir.Value) -> bool:
        """Whether the source ``value`` is the same in every run."""
        return value in self._fixed
