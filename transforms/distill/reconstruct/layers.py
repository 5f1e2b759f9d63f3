"""The layers of a quantised graph whose weights can be rounded another way, by names of values.

A layer reads its weight, and mostly its bias, from integers through DequantizeLinear nodes. Names
stay valid while constants change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, constant, constant_array, input_at, only_consumer
from trimton.transforms.report import Skipped

_LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
_WEIGHTS = frozenset({ir.DataType.INT4, ir.DataType.INT8, ir.DataType.UINT4, ir.DataType.UINT8})
# How far the scale of a bias may be from the product of the two scales that its sums have.
_SCALE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Bias:
    """What a layer adds: the constant ``stored``, in steps of the constant ``scale`` if integer.

    ``value`` is the name of its floats in the graph, those of ``stored`` or what is made of it.
    """

    stored: str
    scale: str | None
    value: str


@dataclass(frozen=True)
class QuantisedLayer:
    """A node and the constants that it computes with.

    ``integers``, ``scale`` and ``zero_point`` (None: 0) are constants, ``weight`` the floats made
    of them. ``activation`` is the scale of what the layer reads (None: it reads floats).
    ``owns_scale`` tells that no other weight has its scale from the same constant.
    """

    node: str
    integers: str
    scale: str
    zero_point: str | None
    weight: str
    activation: str | None
    bias: Bias | None
    owns_scale: bool


def quantised_layers(model: ir.Model) -> tuple[tuple[QuantisedLayer, ...], tuple[Skipped, ...]]:
    """The layers of the main graph of ``model`` with integer weights, in order.

    Those whose integers cannot be changed for one layer alone are named with the reason.
    """
    found: list[QuantisedLayer] = []
    skipped: list[Skipped] = []
    for node in model.graph:
        source = _dequantise(input_at(node, 1))
        if node.op_type not in _LAYERS or node.domain or source is None:
            continue
        stored = constant(source.inputs[0])
        if stored is None:
            continue  # a product of two activations
        why = _why_not(source, stored)
        if why is None:
            found.append(_layer(node, source))
        else:
            skipped.append(Skipped(node.name or "", why))
    return tuple(found), tuple(skipped)


def output_axis(node: ir.Node) -> int:
    """The axis of the output channels in the weight of a layer."""
    if node.op_type == "Conv":
        return 0
    return 0 if node.attributes.get_int("transB", 0) else 1


def array_of(model: ir.Model, name: str) -> Array:
    """The constant ``name`` of ``model``; raises ValueError where it is none."""
    array = constant_array(model.graph.initializers[name])
    if array is None:
        raise ValueError(f"{name} is no constant")
    return array


def along_channels(parameter: Array, weight: Array, node: ir.Node) -> Array:
    """A scale or zero point in a shape that spreads over the ``weight`` of ``node``."""
    if parameter.size == 1:
        return parameter.reshape([1] * weight.ndim)
    axis = output_axis(node)
    return parameter.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])


def before_rounding(value: ir.Value | None) -> ir.Value | None:
    """What ``value`` was before it went through integers; itself where it did not."""
    source = _dequantise(value)
    rounding = None if source is None or source.inputs[0] is None else source.inputs[0].producer()
    is_rounded = rounding is not None and rounding.op_type == "QuantizeLinear"
    return rounding.inputs[0] if rounding is not None and is_rounded else value


def dequantised(model: ir.Model, layer: QuantisedLayer, node: ir.Node) -> Array:
    """The float32 weight that the integers of ``layer``, which is ``node``, stand for."""
    integers = array_of(model, layer.integers)
    scale = along_channels(array_of(model, layer.scale), integers, node)
    zero = np.zeros(1) if layer.zero_point is None else array_of(model, layer.zero_point)
    steps = integers.astype(np.float32) - along_channels(zero.astype(np.float32), integers, node)
    made: Array = (steps * scale).astype(np.float32)
    return made


def _layer(node: ir.Node, source: ir.Node) -> QuantisedLayer:
    scale, zero_point = source.inputs[1], input_at(source, 2)
    activation = _dequantise(node.inputs[0])
    read = None if activation is None else activation.inputs[1]
    assert source.inputs[0] is not None
    assert scale is not None
    return QuantisedLayer(
        node=node.name or "",
        integers=source.inputs[0].name or "",
        scale=scale.name or "",
        zero_point=None if zero_point is None else zero_point.name,
        weight=source.outputs[0].name or "",
        activation=None if read is None else read.name,
        bias=_bias(node, read, scale),
        owns_scale=len(tuple(scale.uses())) == 1,
    )


def _why_not(source: ir.Node, stored: ir.TensorProtocol) -> str | None:
    value, scale = source.inputs[0], constant(source.inputs[1])
    assert value is not None
    if stored.dtype not in _WEIGHTS or scale is None:
        return "its weight is in no 4 or 8 bits with known scales"
    if source.attributes.get_int("block_size", 0):
        return "its weight has a scale for each block"
    if scale.size > 1 and source.attributes.get_int("axis", 1) % len(
        stored.shape.numpy()
    ) != output_axis(source.outputs[0].consumers()[0]):
        return "its scales are not those of output channels"
    is_own = only_consumer(value) is source and only_consumer(source.outputs[0]) is not None
    return None if is_own and value.is_initializer() else "its weight is used elsewhere, too"


def _bias(node: ir.Node, activation: ir.Value | None, weight: ir.Value) -> Bias | None:
    """The bias of ``node`` where it is its own, and in integers only in steps of its sums."""
    for reader, value in _biases(node):
        if value is None or only_consumer(value) is not reader:
            continue
        array = constant_array(value)
        if array is not None and value.is_initializer() and array.dtype == np.float32:
            return Bias(value.name or "", None, value.name or "")
        source = _dequantise(value)
        if source is not None and _is_of_sums(source, activation, weight):
            stored, scale = source.inputs[0], source.inputs[1]
            assert stored is not None
            assert scale is not None
            return Bias(stored.name or "", scale.name, value.name or "")
    return None


def _biases(node: ir.Node) -> Iterator[tuple[ir.Node, ir.Value | None]]:
    """What may be the bias of ``node``, with the node that reads it."""
    if node.op_type != "MatMul":
        yield node, input_at(node, 2)
        return
    add = only_consumer(node.outputs[0])
    if add is not None and add.op_type == "Add" and not add.domain:
        yield from ((add, value) for value in add.inputs)


def _is_of_sums(source: ir.Node, activation: ir.Value | None, weight: ir.Value) -> bool:
    stored, scale = source.inputs[0], source.inputs[1]
    arrays = [constant_array(v) for v in (stored, scale, activation, weight)]
    integers, found, read, own = arrays
    if integers is None or found is None or read is None or own is None:
        return False
    is_own = all(v is not None and only_consumer(v) is source for v in (stored, scale))
    fits = integers.dtype == np.int32 and np.allclose(found, read * own, rtol=_SCALE_TOLERANCE)
    return is_own and bool(fits)


def _dequantise(value: ir.Value | None) -> ir.Node | None:
    node = None if value is None else value.producer()
    is_one = node is not None and node.op_type == "DequantizeLinear" and not node.domain
    return node if is_one else None
