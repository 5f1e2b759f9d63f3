"""Sums in front of layer normalisations, kept from a fusion that makes both slower.

ONNX Runtime fuses ``LayerNormalization(Add(a, b))`` into SkipLayerNormalization. On CPUs its loop
takes two to ten times as long as the vectorised kernels of the two operators it replaces, an
eighth of the time of a quantised transformer. Of two operands the operator Sum makes the same
numbers as Add, and is not fused.
"""

from __future__ import annotations

import onnx_ir as ir

from trimton.transforms.graph.edit import constant, constant_array, input_at, replace_value
from trimton.transforms.report import Step


def keep_norm_sums(model: ir.Model) -> tuple[Step, ...]:
    """Rewrite such sums of all graphs of ``model`` in place; a step if there are any."""
    sums = [
        node
        for graph in model.graphs()
        for node in graph
        if _is_sum_of_activations(node) and _is_normalised(node.outputs[0])
    ]
    for node in sums:
        _rewrite(node)
    what = "Add in front of a layer normalisation kept from a fusion that makes both slower"
    return (Step("rewrite", what, len(sums)),) if sums else ()


def _is_sum_of_activations(node: ir.Node) -> bool:
    is_add = node.op_type == "Add" and not node.domain
    return is_add and all(constant(value) is None for value in node.inputs)


def _is_normalised(value: ir.Value) -> bool:
    """Whether ``value`` is what a LayerNormalization reads, or its form in single operators."""
    readers = [node for node, _ in value.uses() if not node.domain]
    if any(node.op_type == "LayerNormalization" for node in readers):
        return True
    means = [node.outputs[0] for node in readers if _is_mean_of_rows(node)]
    return any(node.op_type == "Sub" and node.inputs[1] in means for node in readers)


def _is_mean_of_rows(node: ir.Node) -> bool:
    return node.op_type == "ReduceMean" and _axes(node) in ([-1], _last_axis(node.inputs[0]))


def _axes(node: ir.Node) -> list[int]:
    """The axes of a ReduceMean: an attribute up to operator set 17, an input since."""
    given = constant_array(input_at(node, 1))
    axes = node.attributes.get_ints("axes", ()) if given is None else given.reshape(-1).tolist()
    return list(axes)


def _last_axis(value: ir.Value | None) -> list[int] | None:
    return None if value is None or value.shape is None else [len(value.shape) - 1]


def _rewrite(node: ir.Node) -> None:
    old, graph = node.outputs[0], node.graph
    if graph is None:
        raise ValueError("the node belongs to no graph")
    new = ir.Value(name=old.name, type=old.type, shape=old.shape)
    graph.insert_before(node, ir.Node("", "Sum", node.inputs, outputs=[new], name=node.name))
    replace_value(old, new)
    graph.remove(node, safe=True)
