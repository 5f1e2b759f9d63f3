"""What has to hold before a graph can be quantised: operator set, names, types."""

from __future__ import annotations

import onnx_ir as ir

from trimton.transforms.graph.edit import Editor
from trimton.transforms.graph.normalise import normalise
from trimton.transforms.graph.shapes import infer_shapes, restored_declarations
from trimton.transforms.quantize.opset import raise_opset
from trimton.transforms.report import Step


def prepare(model: ir.Model) -> tuple[ir.Model, tuple[Step, ...]]:
    """A copy of ``model`` in which every node has a name of its own and values have types.

    Raises UnsupportedModelError where the operator set is too old and cannot be raised.
    """
    raised, steps = raise_opset(model)
    return with_names_and_types(model.clone() if raised is model else raised), steps


def with_names_and_types(model: ir.Model) -> ir.Model:
    """``model`` itself in normal form, each node with a name of its own, values with types."""
    prepared = normalise(model)
    _name_nodes(prepared)
    with restored_declarations(prepared):
        infer_shapes(prepared)
    return prepared


def _name_nodes(model: ir.Model) -> None:
    editor, seen = Editor(model), set[str]()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if not node.name or node.name in seen:
            node.name = editor.fresh_name(node.name or node.op_type)
        seen.add(node.name)
        for number, output in enumerate(node.outputs):
            if output.name is None:
                output.name = editor.fresh_name(f"{node.name}_output_{number}")
