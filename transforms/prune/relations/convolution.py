"""Convolutions: W axis 0 makes the channels, W axis 1 reads them.

In a grouped convolution every group must keep as many channels as the others, so the channels at
the same place of every group are tied; a depthwise one ties each input to what is made of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from trimton.transforms.graph.edit import input_at
from trimton.transforms.prune.relations.relation import Relation
from trimton.transforms.prune.ties import Layer, Ties

SPATIAL = "a kernel slides over it"


def conv(node: ir.Node, ties: Ties) -> None:
    """Conv: W [outputs, inputs / groups, kernel...], bias [outputs]."""
    data, weight, output = node.inputs[0], node.inputs[1], node.outputs[0]
    _frame(data, weight, output, ties)
    groups = node.attributes.get_int("group", 1) or 1
    ties.tie_axes(weight, 0, output, 1)
    if (bias := input_at(node, 2)) is not None:
        ties.tie_axes(bias, 0, output, 1)
    made, read = ties.indices(weight, 0), ties.indices(data, 1)
    if groups == 1:
        ties.tie_axes(weight, 1, data, 1)
    elif ties.size(weight, 1) == 1:
        ties.tie(made.reshape(groups, -1), read.reshape(-1, 1))
    else:
        made, read = made.reshape(groups, -1), read.reshape(groups, -1)
        ties.tie(made[1:], made[:1])
        ties.tie(read, ties.indices(weight, 1).reshape(1, -1))
    is_depthwise = groups > 1 and ties.size(weight, 1) == 1
    if weight is not None and data is not None:
        ties.layers.append(Layer(node, weight, 0, None if is_depthwise else 1, data, 1))


def fused_conv(node: ir.Node, ties: Ties) -> None:
    """com.microsoft FusedConv: a Conv with an activation, and a fourth input that is added."""
    conv(node, ties)
    if (added := input_at(node, 3)) is not None:
        for axis in range(ties.rank(added)):
            ties.tie_axes(added, axis, node.outputs[0], axis)


def conv_transpose(node: ir.Node, ties: Ties) -> None:
    """ConvTranspose: W [inputs, outputs / groups, kernel...], bias [outputs]."""
    data, weight, output = node.inputs[0], node.inputs[1], node.outputs[0]
    _frame(data, weight, output, ties)
    groups = node.attributes.get_int("group", 1) or 1
    ties.tie_axes(weight, 0, data, 1)
    if (bias := input_at(node, 2)) is not None:
        ties.tie_axes(bias, 0, output, 1)
    made, read = ties.indices(output, 1), ties.indices(data, 1)
    is_depthwise = groups > 1 and ties.size(weight, 0) == groups
    if groups == 1:
        ties.tie_axes(weight, 1, output, 1)
    elif is_depthwise:
        ties.tie(made.reshape(groups, -1), read.reshape(-1, 1))
        ties.freeze_axes(weight, range(1, 2), "each channel of a depthwise kernel makes as many")
    else:
        read = read.reshape(groups, -1)
        ties.tie(read[1:], read[:1])
        ties.tie(made.reshape(groups, -1), ties.indices(weight, 1).reshape(1, -1))
    if weight is not None and data is not None:
        ties.layers.append(Layer(node, weight, 1, None if is_depthwise else 0, data, 1))


def _frame(data: ir.Value | None, weight: ir.Value | None, output: ir.Value, ties: Ties) -> None:
    """The batch is passed on, the kernel and what it slides over are kept."""
    ties.tie_axes(data, 0, output, 0)
    for value in (data, weight, output):
        ties.freeze_axes(value, range(2, ties.rank(value)), SPATIAL)


RELATIONS: Mapping[tuple[str, str], Relation] = {
    ("", "Conv"): conv,
    ("", "ConvTranspose"): conv_transpose,
    ("com.microsoft", "FusedConv"): fused_conv,
}
