"""Quantised weights in a form that can be trained, and back: quantisation-aware training.

A quantised model stores integers, which have no gradient:

    w_integer -> DequantizeLinear -> layer

While it is trained, a float weight is rounded in every step, and the gradient passes the rounding
as if it were not there (Bengio et al. 2013, arXiv:1308.3432):

    w_float -> QuantizeLinear -> DequantizeLinear -> layer

Scales and zero points stay, so that training ends in the graph that quantisation placed, with other
integers in it. Biases in 32 bits have steps that are too small to matter; they are plain floats
meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, constant, constant_array, input_at

_TRAINED = frozenset(
    {ir.DataType.INT4, ir.DataType.INT8, ir.DataType.UINT4, ir.DataType.UINT8, ir.DataType.INT16}
)
_BIAS = ir.DataType.INT32
_SUFFIX = "/trained"


@dataclass(frozen=True)
class TrainableForm:
    """``model`` with float weights where the model it is made of has the integers ``names``."""

    model: ir.Model
    names: tuple[str, ...]

    def stored(self, trained: ir.Model, original: ir.Model) -> ir.Model:
        """``original`` with the weights of ``trained``, a form of ``model``, in integers again."""
        result, floats = original.clone(), trained.graph.initializers
        for name in self.names:
            value = result.graph.initializers[name]
            node = next(use.node for use in value.uses())
            float_weight = constant_array(floats[name + _SUFFIX])
            assert float_weight is not None
            value.const_value = _integers(node, float_weight, value)
        for name, value in result.graph.initializers.items():
            if name in floats:
                value.const_value = floats[name].const_value
        return result


def trainable_form(model: ir.Model) -> TrainableForm:
    """``model``, which is left as it is, with every quantised weight trainable.

    Weights that several layers read, or in blocks, or that may be overridden by an input, stay
    integers.
    """
    work = model.clone()
    names = []
    for node in list(work.graph):
        value = input_at(node, 0)
        if node.op_type != "DequantizeLinear" or node.domain or value is None:
            continue
        tensor = constant(value)
        if tensor is None or not value.is_initializer() or len(tuple(value.uses())) != 1:
            continue
        if node.attributes.get_int("block_size", 0) or tensor.dtype not in {*_TRAINED, _BIAS}:
            continue
        names.append(value.name or "")
        _put_float(work, node, value)
    return TrainableForm(work, tuple(names))


def _put_float(work: ir.Model, node: ir.Node, value: ir.Value) -> None:
    """Have ``node`` read the rounded form of a float weight instead of the integers ``value``."""
    tensor = value.const_value
    assert tensor is not None
    name = f"{value.name}{_SUFFIX}"
    weight = ir.Value(
        name=name,
        shape=ir.Shape(tensor.shape.numpy()),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(_dequantised(node, tensor.numpy()), name=name),
    )
    work.graph.register_initializer(weight)
    del work.graph.initializers[value.name or ""]
    if tensor.dtype == _BIAS:
        node.outputs[0].replace_all_uses_with(weight)
        work.graph.remove(node, safe=True)
        return
    axis = [a for a in node.attributes.values() if a.name == "axis"]
    rounding = ir.Node("", "QuantizeLinear", [weight, *node.inputs[1:]], axis, name=f"{name}/round")
    rounding.outputs[0].name = f"{name}/rounded"
    rounding.outputs[0].type = ir.TensorType(tensor.dtype)
    work.graph.insert_before(node, rounding)
    node.replace_input_with(0, rounding.outputs[0])


def _dequantised(node: ir.Node, integers: Array) -> Array:
    scale, zero = _grid(node, integers.ndim)
    return ((integers.astype(np.float32) - zero) * scale).astype(np.float32)


def _integers(node: ir.Node, weight: Array, value: ir.Value) -> ir.TensorProtocol:
    """``weight`` on the grid of ``node``, as QuantizeLinear puts it there, for ``value``."""
    old = value.const_value
    assert old is not None
    scale, zero = _grid(node, weight.ndim)
    low, high = _bounds(old.dtype)
    steps = np.clip(np.round(weight / scale) + zero, low, high)
    return ir.tensor(steps.astype(old.dtype.numpy()), dtype=old.dtype, name=value.name)


def _grid(node: ir.Node, rank: int) -> tuple[Array, Array]:
    """Scale and zero point of ``node``, float32, in a shape that spreads over its weight."""
    scale, zero = constant_array(node.inputs[1]), constant_array(input_at(node, 2))
    assert scale is not None
    axis = node.attributes.get_int("axis", 1) % max(rank, 1)
    shape = [-1 if i == axis else 1 for i in range(rank)] if scale.size > 1 else [1] * rank
    offset = np.zeros(1) if zero is None else zero
    return (
        scale.astype(np.float32).reshape(shape),
        offset.astype(np.float32).reshape(shape if offset.size > 1 else [1] * rank),
    )


def _bounds(dtype: ir.DataType) -> tuple[int, int]:
    bits, is_signed = dtype.bitwidth, dtype.name.startswith("INT")
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
