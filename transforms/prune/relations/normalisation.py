"""Normalisations: their parameters go with the channels; some take statistics over them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from trimton.transforms.prune.relations.relation import Relation
from trimton.transforms.prune.ties import Ties


def batch_normalization(node: ir.Node, ties: Ties) -> None:
    """BatchNormalization: scale, shift, mean and variance [C]."""
    _per_channel(node, ties)
    if node.inputs[1] is not None:
        ties.scales.append(node.inputs[1])
    for output in node.outputs[1:]:  # statistics of a training mode
        ties.freeze_value(output, "it is a statistic of the batch")


def instance_normalization(node: ir.Node, ties: Ties) -> None:
    """InstanceNormalization: scale and shift [C]; every channel has its own statistics."""
    _per_channel(node, ties)


def _per_channel(node: ir.Node, ties: Ties) -> None:
    output = node.outputs[0]
    for axis in range(ties.rank(output)):
        ties.tie_axes(node.inputs[0], axis, output, axis)
    for parameter in node.inputs[1:]:
        ties.tie_axes(parameter, 0, output, 1)


def layer_normalization(node: ir.Node, ties: Ties) -> None:
    """LayerNormalization, RMSNormalization: statistics over the last axes, from ``axis`` on."""
    data, output = node.inputs[0], node.outputs[0]
    rank = ties.rank(output)
    first = node.attributes.get_int("axis", -1)
    first = rank - 1 if first is None else first % rank
    for axis in range(rank):
        ties.tie_axes(data, axis, output, axis)
    for parameter in node.inputs[1:]:
        if parameter is not None:
            ties.broadcast(parameter, output)
    for axis in range(first, rank):
        ties.shared_statistics.append(ties.indices(output, axis))
    for statistic in node.outputs[1:]:
        for axis in range(min(first, ties.rank(statistic))):
            ties.tie_axes(statistic, axis, output, axis)


def skip_layer_normalization(node: ir.Node, ties: Ties) -> None:
    """com.microsoft SkipLayerNormalization: the sum of two inputs (and a bias), normalised."""
    output = node.outputs[0]
    for value in (*node.inputs, *node.outputs[3:]):
        if value is not None and value.name:
            ties.broadcast(value, output)
    for statistic in node.outputs[1:3]:
        ties.freeze_value(statistic, "it is a statistic")
    ties.shared_statistics.append(ties.indices(output, -1))


def frozen_channels(node: ir.Node, ties: Ties) -> None:
    """Statistics or sums over some of the channels: they are kept, other axes are passed on."""
    output = node.outputs[0]
    for axis in range(ties.rank(output)):
        ties.tie_axes(node.inputs[0], axis, output, axis)
    reason = f"{node.op_type} mixes neighbouring channels"
    ties.freeze(ties.indices(output, 1), reason)
    for parameter in node.inputs[1:]:
        ties.freeze_value(parameter, reason)


def lp_normalization(node: ir.Node, ties: Ties) -> None:
    """LpNormalization divides by the norm along one axis, to which a zero adds nothing."""
    output = node.outputs[0]
    for axis in range(ties.rank(output)):
        ties.tie_axes(node.inputs[0], axis, output, axis)
    axis = node.attributes.get_int("axis", -1)
    ties.shared_statistics.append(ties.indices(output, -1 if axis is None else axis))


RELATIONS: Mapping[tuple[str, str], Relation] = {
    ("", "BatchNormalization"): batch_normalization,
    ("", "GroupNormalization"): frozen_channels,
    ("", "InstanceNormalization"): instance_normalization,
    ("", "LRN"): frozen_channels,
    ("", "LayerNormalization"): layer_normalization,
    ("", "LpNormalization"): lp_normalization,
    ("", "RMSNormalization"): layer_normalization,
    ("", "SimplifiedLayerNormalization"): layer_normalization,
    ("com.microsoft", "SkipLayerNormalization"): skip_layer_normalization,
    ("com.microsoft", "SkipSimplifiedLayerNormalization"): skip_layer_normalization,
}
