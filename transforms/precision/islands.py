"""Why a node must compute in float32: its operator, its constants, how large its values become."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from trimton.transforms.graph.edit import Array, constant, constant_array, opset_of
from trimton.transforms.graph.names import matches
from trimton.transforms.precision.formats import HalfFormat
from trimton.transforms.precision.kernels import has_kernel
from trimton.transforms.precision.settings import CastSettings
from trimton.transforms.precision.slots import Slots, half_slots

# Operators that gain by half precision on every processor that has kernels for it.
PRODUCTS = frozenset({"Attention", "Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM"}) | {
    "MatMul",
    "RNN",
}
_SUMS = (
    *("CumSum", "Range", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare", "MeanVarianceNormalization"),
)
# Operator -> inputs where a number that becomes zero is not merely a small error.
_EACH_COUNTS: Mapping[str, frozenset[int]] = {
    "Div": frozenset({1}),
    "Log": frozenset({0}),
    "Pow": frozenset({0, 1}),
    "Reciprocal": frozenset({0}),
    "Sqrt": frozenset({0}),
}
# The samples are not all that will ever come: values must stay this far below the largest number.
_MARGIN = 4


class Candidates:
    """The nodes of the main graph of ``model`` that may compute in half precision.

    ``slots`` are their inputs and outputs, ``reasons`` tell of the others that have float32
    inputs or outputs why they may not.
    """

    def __init__(self, model: ir.Model, settings: CastSettings) -> None:
        self._form, self._opset = settings.form, opset_of(model)
        self.slots: dict[ir.Node, Slots] = {}
        self.reasons: dict[ir.Node, str] = {}
        for node in model.graph:
            slots = half_slots(node, self._opset, self._form)
            if isinstance(slots, Slots) and not (slots.inputs or slots.outputs):
                continue
            why = slots if isinstance(slots, str) else self._why_single(node, slots, settings)
            if why is None and isinstance(slots, Slots):
                self.slots[node] = slots
            else:
                self.reasons[node] = why or ""

    def refuse_large_values(self, largest: Mapping[str, float]) -> None:
        """Take out the nodes that make or read a value that comes too close to the limit.

        ``largest`` has the largest |x| of values by name.
        """
        limit = self._form.largest / _MARGIN
        for node, slots in list(self.slots.items()):
            for value in slot_values(node, slots):
                size = largest.get(value.name or "", 0.0)
                if size > limit:
                    self.refuse(node, f"{value.name} reaches {size:.3g}, above {limit:.3g}")
                    break

    def refuse(self, node: ir.Node, why: str) -> None:
        """Let ``node`` compute in float32."""
        del self.slots[node]
        self.reasons[node] = why

    def _why_single(self, node: ir.Node, slots: Slots, settings: CastSettings) -> str | None:
        if matches(node.name or "", settings.exclude):
            return "excluded by name"
        if node.op_type in _SUMS:
            return "it sums or multiplies many numbers, which needs float32"
        for index in sorted(slots.inputs):
            array = _float_constant(node.inputs[index])
            if array is not None and (why := obstacle(self._form, node, index, array)):
                return f"its constant {why}"
        if settings.target == "cpu" and not has_kernel(node, slots, self._opset, self._form.dtype):
            return f"the CPU provider of this machine has no {self._form.name} kernel for it"
        return None


def obstacle(form: HalfFormat, reader: ir.Node, index: int, array: Array) -> str | None:
    """Why ``array``, input ``index`` of ``reader``, must not be stored in half precision."""
    return form.obstacle(array, each_counts=index in _EACH_COUNTS.get(reader.op_type, ()))


def slot_values(node: ir.Node, slots: Slots) -> Iterator[ir.Value]:
    """The activations at the ``slots`` of ``node``."""
    for index in sorted(slots.inputs):
        value = node.inputs[index]
        if value is not None and constant(value) is None:
            yield value
    yield from (node.outputs[index] for index in sorted(slots.outputs))


def _float_constant(value: ir.Value | None) -> Array | None:
    tensor = constant(value)
    return constant_array(value) if tensor is not None and tensor.size else None
