"""Inputs and outputs in half precision, for callers that have such numbers already."""

from __future__ import annotations

import onnx_ir as ir

from trimton.transforms.graph.edit import Editor
from trimton.transforms.graph.unread import remove_unread


def halve_interface(model: ir.Model, half: ir.DataType) -> None:
    """Give float32 inputs and outputs of ``model`` the type ``half``, in place.

    Casts at the border that are not needed any more go; where float32 is computed behind it, one
    is added.
    """
    editor = Editor(model)
    for value in model.graph.inputs:
        if value.dtype == ir.DataType.FLOAT:
            _halve_input(value, half, editor)
    for value in tuple(model.graph.outputs):
        if value.dtype == ir.DataType.FLOAT:
            _halve_output(value, half, editor)
    remove_unread(model)


def _halve_input(value: ir.Value, half: ir.DataType, editor: Editor) -> None:
    value.type = ir.TensorType(half)
    singles = []
    for node, index in tuple(value.uses()):
        if _is_cast(node, half) and not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(value)
        else:
            singles.append((node, index))
    if not singles:
        return
    cast = _cast(value, ir.DataType.FLOAT, editor)
    editor.model.graph.insert_before(editor.model.graph[0], cast)
    for node, index in singles:
        node.replace_input_with(index, cast.outputs[0])


def _halve_output(value: ir.Value, half: ir.DataType, editor: Editor) -> None:
    graph, maker = editor.model.graph, value.producer()
    place = list(graph.outputs).index(value)
    source = maker.inputs[0] if maker is not None and _is_cast(maker, ir.DataType.FLOAT) else None
    if source is None or source.dtype != half or source.is_graph_input():
        cast = _cast(value, half, editor)
        if maker is None:
            graph.append(cast)
        else:
            graph.insert_after(maker, cast)
        source = cast.outputs[0]
    graph.outputs[place] = source
    value.name, source.name = source.name, value.name


def _is_cast(node: ir.Node, to: ir.DataType) -> bool:
    return node.op_type == "Cast" and not node.domain and node.attributes.get_int("to", 0) == to


def _cast(value: ir.Value, to: ir.DataType, editor: Editor) -> ir.Node:
    name = editor.fresh_name(f"{value.name}_{to.name.lower()}")
    node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", to)], num_outputs=1, name=name)
    output = node.outputs[0]
    output.name, output.type, output.shape = name, ir.TensorType(to), value.shape
    return node
