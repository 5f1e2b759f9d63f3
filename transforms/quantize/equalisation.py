"""Cross-layer equalisation: channels of like range between two layers.

What lies between must be positively homogeneous, f(s x) = s f(x) for s > 0: then
W2 f(W1 x + b1) = (W2 S) f(S^-1 W1 x + S^-1 b1) for any diagonal S > 0. With
s = sqrt(range of the rows of W1 / range of the columns of W2) both ranges become the same, and
with them channels share one scale of the activation between at less loss.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
Correction", arXiv:1906.04721.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Editor, constant_array, input_at, only_consumer
from trimton.transforms.linear.layers import LinearLayer, find_linear_layers
from trimton.transforms.quantize.channel_scaling import (
    input_ranges,
    output_ranges,
    power_of_two,
    scale_inputs,
    scale_outputs,
    scale_vector,
)
from trimton.transforms.report import Step

# f(s x) = s f(x) for each channel by itself, and channels stay where they are.
_HOMOGENEOUS = frozenset(
    {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu", "MaxPool"}
    | {"Dropout", "Relu"}
)
# Chains of layers, such as around depthwise convolutions, settle after a few rounds.
_ROUNDS = 8


@dataclass(frozen=True)
class _Pair:
    """Two layers, and the Adds of a constant between them, whose constant scales along."""

    first: LinearLayer
    second: LinearLayer
    added: tuple[tuple[ir.Node, int], ...]


def equalise(model: ir.Model) -> tuple[Step, ...]:
    """Equalise neighbouring layers of ``model``, which is in normal form with shapes; in place.

    The outputs stay the same to the bit. One step for each pair that changed.
    """
    pairs, editor = tuple(_pairs(model)), Editor(model)
    changed: dict[int, float] = {}
    for _ in range(_ROUNDS):
        moved = [_equalise(pair, editor) for pair in pairs]
        for number, factor in enumerate(moved):
            if factor > 1.0:
                changed[number] = changed.get(number, 1.0) * factor
        if all(factor == 1.0 for factor in moved):
            break
    return tuple(
        Step(
            "equalise",
            f"scales of channels moved from {pairs[number].first.name} into "
            f"{pairs[number].second.name}",
            detail={"largest_factor": factor},
        )
        for number, factor in sorted(changed.items())
    )


def _equalise(pair: _Pair, editor: Editor) -> float:
    """Equalise once; the largest factor by which a channel was scaled up or down."""
    made, read = output_ranges(pair.first), input_ranges(pair.second)
    is_used = (made > 0) & (read > 0)
    scales = power_of_two(np.sqrt(np.divide(made, read, where=is_used, out=np.ones_like(made))))
    if (scales == 1.0).all():
        return 1.0
    scale_outputs(pair.first, 1.0 / scales)
    node = pair.first.layer.node
    if node.op_type != "MatMul" and input_at(node, 2) is not None:
        scale_vector(node, 2, 1.0 / scales, editor)
    for add, index in pair.added:
        scale_vector(add, index, 1.0 / scales, editor)
    scale_inputs(pair.second, scales)
    return float(np.maximum(scales, 1.0 / scales).max())


def _pairs(model: ir.Model) -> Iterator[_Pair]:
    layers = find_linear_layers(model).layers
    by_node: Mapping[ir.Node, LinearLayer] = {layer.layer.node: layer for layer in layers}
    for first in layers:
        pair = _pair(first, by_node)
        if pair is not None and len(output_ranges(first)) == len(input_ranges(pair.second)):
            yield pair


def _pair(first: LinearLayer, by_node: Mapping[ir.Node, LinearLayer]) -> _Pair | None:
    """``first`` with the layer that alone reads it, through homogeneous nodes; None without."""
    node = first.layer.node
    added: list[tuple[ir.Node, int]] = []
    if node.op_type != "MatMul" and input_at(node, 2) is not None:
        bias = constant_array(input_at(node, 2))
        if bias is None or bias.shape[-1:] != (bias.size,):
            return None
    value: ir.Value = node.outputs[0]
    while (reader := only_consumer(value)) is not None:
        second = by_node.get(reader)
        if second is not None and reader.inputs[0] is value:
            return _Pair(first, second, tuple(added)) if second.kernel or not first.kernel else None
        if reader.domain or second is not None:
            return None
        if reader.op_type == "Add":
            index = 1 if reader.inputs[0] is value else 0
            if first.kernel or not _is_channel_vector(reader, index, first):
                return None
            added.append((reader, index))
        elif reader.op_type not in _HOMOGENEOUS or len(reader.outputs) > 1:
            return None
        value = reader.outputs[0]
    return None


def _is_channel_vector(node: ir.Node, index: int, layer: LinearLayer) -> bool:
    """Whether a constant has one number for each output of a matrix product."""
    array = constant_array(node.inputs[index])
    outputs = layer.matrices().shape[2]
    return array is not None and array.shape[-1:] == (outputs,) and array.size == outputs
