"""Biases of quantised layers, and the mean error that they can take away.

Rounding weights and clipping activations moves the mean of an output; what a layer adds to its
sums can move it back, at no cost.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
Correction", arXiv:1906.04721.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, constant_array, input_at, only_consumer

_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Bias:
    """What a layer adds to its outputs: ``value`` is a constant, times ``scale`` if integer."""

    value: ir.Value
    scale: Array | None

    def add(self, amount: Array) -> None:
        """Add ``amount`` [outputs] to it, in place."""
        old = constant_array(self.value)
        if old is None:
            raise ValueError(f"{self.value.name} is no constant")
        moved = old.astype(np.float64) + self._in_steps(amount).reshape(old.shape)
        if self.scale is not None:
            moved = np.clip(np.rint(moved), _INT32.min, _INT32.max)
        self.value.const_value = ir.tensor(moved.astype(old.dtype), name=self.value.name)

    def _in_steps(self, amount: Array) -> Array:
        return amount if self.scale is None else amount / self.scale.astype(np.float64)


def correct_bias(bias: Bias, change: Array, means: Array) -> None:
    """Take away what ``change`` of a layer's weights adds to the mean of its outputs, in place.

    ``change`` is [groups, features, outputs of a group], ``means`` of the features [groups,
    features]: the sums are linear in the weights, so that their mean error is known exactly.
    """
    bias.add(-np.einsum("gf,gfo->go", means, change).ravel())


def bias_of(node: ir.Node, outputs: int) -> Bias | None:
    """The bias of a layer of a quantised graph with that many outputs; None where it has none.

    A MatMul has that of an Add of its own behind it. A bias that others read is none.
    """
    if node.op_type == "MatMul":
        add = only_consumer(node.outputs[0])
        if add is None or add.op_type != "Add" or add.domain:
            return None
        return _constant(add, [add.inputs[0], add.inputs[1]], outputs)
    return _constant(node, [input_at(node, 2)], outputs)


def _constant(reader: ir.Node, values: list[ir.Value | None], outputs: int) -> Bias | None:
    for value in values:
        if value is None or only_consumer(value) is not reader:
            continue
        producer = value.producer()
        scale = None
        if producer is not None and producer.op_type == "DequantizeLinear":
            scale = constant_array(producer.inputs[1])
            value = producer.inputs[0]
        array = constant_array(value)
        if value is None or array is None or not value.is_initializer():
            continue
        is_own = len(tuple(value.uses())) == 1 and not value.is_graph_output()
        is_fine = scale is None or array.dtype == np.int32
        if is_own and is_fine and array.shape[-1:] == (outputs,) and array.size == outputs:
            return Bias(value, scale)
    return None
