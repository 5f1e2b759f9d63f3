"""What removed channels gave on average, added to the bias of what read them.

With samples, a removed channel is replaced by its mean over them. Without samples, by what
BatchNormalization makes of the mean of its statistics: its shift, through the activation. Borders
of padded convolutions see the constant less often than this assumes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, Editor, constant, constant_array, input_at
from trimton.transforms.prune.activations import ChannelMeans, channel_means, random_feeds
from trimton.transforms.prune.rewrites import Kept
from trimton.transforms.prune.ties import Layer

_FOLDABLE = frozenset({"Conv", "FusedConv", "Gemm", "MatMul"})


@dataclass(frozen=True)
class Shift:
    """What to add to the output channels of ``node`` that stay, [channels]."""

    node: ir.Node
    amount: Array


def find_shifts(kept: Kept, means: Mapping[tuple[str, int], ChannelMeans]) -> tuple[Shift, ...]:
    """The shifts of all layers that read removed channels of known mean; before the cut."""
    shifts = (_shift(layer, kept, means) for layer in kept.ties.layers)
    return tuple(shift for shift in shifts if shift is not None)


def _shift(layer: Layer, kept: Kept, means: Mapping[tuple[str, int], ChannelMeans]) -> Shift | None:
    mean = means.get((layer.activation.name or "", layer.activation_axis))
    weight = constant_array(layer.weight)
    if (
        mean is None
        or weight is None
        or layer.inputs is None
        or layer.node.op_type not in _FOLDABLE
        or (layer.node.attributes.get_int("group", 1) or 1) > 1
        or (layer.node.op_type in ("Gemm", "MatMul") and not _is_second_factor(layer, weight))
    ):
        return None
    is_kept = kept.mask(layer.weight, layer.inputs)
    if is_kept.all():
        return None
    moved = np.moveaxis(weight, (layer.outputs, layer.inputs), (0, 1)).astype(np.float64)
    summed = moved.reshape(*moved.shape[:2], -1).sum(axis=2)
    amount = summed[:, ~is_kept] @ mean.signed[~is_kept] * _alpha(layer.node)
    return Shift(layer.node, amount[kept.mask(layer.weight, layer.outputs)])


def _is_second_factor(layer: Layer, weight: Array) -> bool:
    return weight.ndim == 2 and layer.node.inputs[1] is layer.weight


def batchnorm_constants(model: ir.Model, kept: Kept) -> Mapping[tuple[str, int], ChannelMeans]:
    """What layers read of removed channels, had these no scale in their BatchNormalizations.

    Only where that does not depend on the inputs; else 0, as after a removal. ``kept`` must have
    been found on this very model.
    """
    ties = kept.ties
    scales = [scale for scale in ties.scales if constant(scale) is not None]
    if not scales:
        return {}
    copy = model.clone()
    for scale in scales:
        array = copy.graph.initializers[scale.name or ""].const_value
        if array is not None:
            new = np.where(kept.mask(scale, 0), array.numpy(), 0).astype(array.numpy().dtype)
            copy.graph.initializers[scale.name or ""].const_value = ir.tensor(new, name=scale.name)
    readers = [layer for layer in ties.layers if layer.inputs is not None]
    runs = [channel_means(copy, readers, [feed]) for feed in random_feeds(copy)]
    if len(runs) < 2:
        return {}
    return {key: _constant_part(first, runs[1][key]) for key, first in runs[0].items()}


def _constant_part(one: ChannelMeans, other: ChannelMeans) -> ChannelMeans:
    is_constant = np.isclose(one.signed, other.signed, rtol=1e-4, atol=1e-7) & np.isclose(
        one.absolute, other.absolute, rtol=1e-4, atol=1e-7
    )
    return ChannelMeans(one.signed * is_constant, one.absolute * is_constant)


def apply_shift(shift: Shift, editor: Editor) -> None:
    """Add ``shift`` to the bias of its node, or give it one; in place, after the cut."""
    node = shift.node
    amount = shift.amount
    if node.op_type == "MatMul":
        _add_after(node, amount, editor)
        return
    bias = input_at(node, 2)
    tensor = constant(bias)
    if bias is not None and (tensor is None or _beta(node) != 1.0):
        _add_after(node, amount, editor)
        return
    dtype = (node.outputs[0].dtype or ir.DataType.FLOAT).numpy()
    old = np.zeros(1) if tensor is None else tensor.numpy().astype(np.float64)
    editor.set_constant(node, 2, (old + amount).astype(dtype), f"{node.outputs[0].name}_bias")


def _alpha(node: ir.Node) -> float:
    alpha = node.attributes.get_float("alpha", 1.0) if node.op_type == "Gemm" else 1.0
    return 1.0 if alpha is None else alpha


def _beta(node: ir.Node) -> float:
    beta = node.attributes.get_float("beta", 1.0) if node.op_type == "Gemm" else 1.0
    return 1.0 if beta is None else beta


def _add_after(node: ir.Node, amount: Array, editor: Editor) -> None:
    """Add a constant behind ``node``: in the Add that follows, or in a new one."""
    graph, output = node.graph, node.outputs[0]
    if graph is None:
        raise ValueError("the node belongs to no graph")
    dtype = (output.dtype or ir.DataType.FLOAT).numpy()
    uses = tuple(output.uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add" and not output.is_graph_output():
        add, index = uses[0]
        old = constant_array(add.inputs[1 - index])
        if old is not None and old.shape == amount.shape:
            new = (old.astype(np.float64) + amount).astype(dtype)
            editor.set_constant(add, 1 - index, new, f"{output.name}_bias")
            return
    name = editor.fresh_name(f"{output.name}_shifted")
    made = ir.Value(name=name, type=output.type, shape=output.shape)
    constant_value = editor.add_constant(graph, f"{output.name}_shift", amount.astype(dtype))
    output.replace_all_uses_with(made, replace_graph_outputs=True)
    if made.is_graph_output():
        made.name, output.name = output.name, name
    graph.insert_after(node, ir.node("Add", [output, constant_value], outputs=[made], name=name))
