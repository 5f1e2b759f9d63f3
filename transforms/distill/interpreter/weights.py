"""Which constants of a graph learn, and under which names a module keeps them.

A constant learns where it stands as a weight: the kernel of a layer, its bias, a scale or shift
with one number a channel. Bounds, exponents, scales of resizing, masks and statistics do not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.distill.interpreter.dtypes import TORCH_TYPES, Array

# Inputs that are weights, whatever their size.
_WEIGHT_INPUTS: Mapping[str, frozenset[int]] = {
    "BatchNormalization": frozenset({1, 2}),
    "Conv": frozenset({1, 2}),
    "ConvTranspose": frozenset({1, 2}),
    "Einsum": frozenset(range(8)),
    "GRU": frozenset({1, 2, 3}),
    "Gather": frozenset({0}),
    "Gemm": frozenset({0, 1, 2}),
    "GroupNormalization": frozenset({1, 2}),
    "InstanceNormalization": frozenset({1, 2}),
    "LSTM": frozenset({1, 2, 3, 7}),
    "LayerNormalization": frozenset({1, 2}),
    "MatMul": frozenset({0, 1}),
    "PRelu": frozenset({1}),
    "RMSNormalization": frozenset({1}),
    "RNN": frozenset({1, 2, 3}),
}
# A single number here is part of a formula (the 3 and the 6 of hard-swish), no weight.
_ARITHMETIC = frozenset({"Add", "Div", "Mul", "Sub", "Sum"})
# What passes a weight on: moved about, converted or rounded, it is learnt all the same.
_PASSED_ON = frozenset(
    {
        "Cast",
        "Concat",
        "DequantizeLinear",
        "Dropout",
        "Expand",
        "Flatten",
        "Identity",
        "QuantizeLinear",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
_STATISTICS_INPUTS = frozenset({3, 4})
# What attention masks add to positions that must not be seen.
_SMALLEST_MASK = 1e4


@dataclass(frozen=True)
class Weight:
    """One constant of a graph: ``name`` is unique in the model, ``key`` in the module."""

    name: str
    key: str
    value: ir.Value
    learns: bool
    is_statistic: bool

    def array(self) -> Array:
        """Its value in the model."""
        tensor = self.value.const_value
        if tensor is None:
            raise ValueError(f"{self.name} has no value")
        return tensor.numpy()


def collect_weights(model: ir.Model, reserved: Iterable[str] = ()) -> tuple[Weight, ...]:
    """Every constant tensor of all graphs of ``model`` whose type torch has, in graph order.

    Graphs that cannot see each other may use one name twice: later ones get a number. A key is
    the name with "/" for "."; where it is ``reserved`` or taken, with a number, too.
    """
    names, keys = Counter[str](), Counter(reserved)
    return tuple(
        Weight(
            name, _unique(name.replace(".", "/"), keys), value, learns(value), _is_statistic(value)
        )
        for value in _constants(model)
        for name in (_unique(value.name or "", names),)
    )


def learns(value: ir.Value) -> bool:
    """Whether the constant ``value`` stands as a weight somewhere, moved about or not."""
    tensor = value.const_value
    if tensor is None or not tensor.dtype.is_floating_point() or tensor.dtype.bitwidth < 16:
        return False
    return any(_is_weight_at(tensor, user, index) for user, index in _final_uses([value]))


def _is_weight_at(tensor: ir.TensorProtocol, node: ir.Node, index: int) -> bool:
    if node.domain:
        return False
    if index in _WEIGHT_INPUTS.get(node.op_type, ()):
        return True
    if node.op_type not in _ARITHMETIC or _is_mask(tensor.numpy()):
        return False
    return tensor.size > 1 or _is_bias_of_one(node, index)


def _is_bias_of_one(node: ir.Node, index: int) -> bool:
    """Whether ``node`` adds a single number to a product with a single column."""
    other = node.inputs[1 - index] if node.op_type == "Add" else None
    product = None if other is None else other.producer()
    if product is None or product.op_type != "MatMul" or product.domain:
        return False
    weight = product.inputs[1]
    tensor = None if weight is None else weight.const_value
    return tensor is not None and tensor.shape.numpy()[-1:] == (1,)


def _is_mask(array: Array) -> bool:
    return bool(np.min(array) <= -_SMALLEST_MASK)


def _is_statistic(value: ir.Value) -> bool:
    """Whether normalisation over the batch keeps its running mean or variance here."""
    return any(
        node.op_type == "BatchNormalization" and not node.domain and index in _STATISTICS_INPUTS
        for node, index in value.uses()
    )


def _final_uses(values: Iterable[ir.Value]) -> Iterator[tuple[ir.Node, int]]:
    """The uses of ``values``, seen through nodes that only move or round elements."""
    pending, seen = list(values), set[ir.Value]()
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        for node, index in value.uses():
            if node.op_type in _PASSED_ON and not node.domain and (index == 0 or _joins(node)):
                pending.extend(node.outputs)
            else:
                yield node, index


def _joins(node: ir.Node) -> bool:
    return node.op_type == "Concat"


def _constants(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype in TORCH_TYPES:
                yield value


def _unique(name: str, taken: Counter[str]) -> str:
    taken[name] += 1
    return name if taken[name] == 1 else _unique(f"{name}_{taken[name]}", taken)
