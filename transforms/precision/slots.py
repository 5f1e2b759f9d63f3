"""Which inputs and outputs of a node are in half precision where it computes in half.

ONNX's operator schemas decide: a parameter whose type is a variable that may be the half type
follows the node, one that is float32 by its schema (scales of Resize, boxes of NonMaxSuppression)
stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx import defs

from trimton.transforms.graph.tensors import subgraphs_of
from trimton.transforms.precision.formats import HalfFormat


@dataclass(frozen=True)
class Slots:
    """Positions of the float32 inputs and outputs that follow the node into half precision."""

    inputs: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()


def half_slots(node: ir.Node, opset: int, form: HalfFormat) -> Slots | str:
    """The slots of ``node``, whose operator set is ``opset``, or why it has no half form."""
    if node.domain:
        return "it is no operator of the ONNX standard"
    if subgraphs_of(node):
        return "control flow: its bodies compute in float32, from weights in half precision"
    unknown = [v.name for v in (*node.inputs, *node.outputs) if v is not None and v.type is None]
    if any(unknown):
        return f"the type of {unknown[0]} is not known"
    if node.op_type == "Cast":
        return _cast(node, form)
    schema = defs.get_schema(node.op_type, opset, "")
    allowed = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
    missing = f"ONNX has no {form.name} form of it in operator set {opset}"
    inputs, variables = set[int](), set[str]()
    for index, value in enumerate(node.inputs):
        if value is None or value.dtype != ir.DataType.FLOAT:
            continue
        variable = _formal(schema.inputs, index).type_str
        if variable not in allowed:
            continue
        if form.type_text not in allowed[variable]:
            return missing
        inputs.add(index)
        variables.add(variable)
    outputs = set[int]()
    for index, output in enumerate(node.outputs):
        if output.dtype != ir.DataType.FLOAT:
            continue
        variable = _formal(schema.outputs, index).type_str
        if variable in variables:
            outputs.add(index)
        elif variable in allowed and output.uses():
            return "an attribute sets the type of what it makes"
    return Slots(frozenset(inputs), frozenset(outputs))


def _formal(
    formals: Sequence[defs.OpSchema.FormalParameter], index: int
) -> defs.OpSchema.FormalParameter:
    """The formal parameter at ``index``; the last one may stand for many."""
    return formals[min(index, len(formals) - 1)]


def _cast(node: ir.Node, form: HalfFormat) -> Slots | str:
    """A Cast may read and make half precision, but whole numbers must not pass through it."""
    source = node.inputs[0].dtype if node.inputs[0] is not None else None
    to = ir.DataType(node.attributes.get_int("to", 0) or 0)
    others = {source, to} - {ir.DataType.FLOAT, ir.DataType.BOOL, form.dtype}
    if others:
        return f"whole numbers above {form.largest_exact_integer} do not fit into {form.name}"
    floats = frozenset({0})
    return Slots(
        floats if source == ir.DataType.FLOAT else frozenset(),
        floats if to == ir.DataType.FLOAT else frozenset(),
    )
