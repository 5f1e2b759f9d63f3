"""A unit of a graph as a model of its own."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.convenience import extract
from onnx_ir.passes.common import RemoveUnusedNodesPass

from trimton.transforms.distill.reconstruct.units import Unit


def unit_model(model: ir.Model, unit: Unit) -> ir.Model:
    """A copy of the part of ``model`` that makes the unit's targets of its sources.

    Inputs of ``model`` that it reads besides stay inputs; constants keep their names.
    """
    graph = model.graph
    given = [value.name or "" for value in graph.inputs if not value.is_initializer()]
    part = extract(graph, [*unit.sources, *given], unit.targets)
    made = ir.Model(part, ir_version=model.ir_version, functions=tuple(model.functions.values()))
    RemoveUnusedNodesPass()(made)
    for value in list(part.inputs):
        if not value.uses():
            part.inputs.remove(value)
    return made
