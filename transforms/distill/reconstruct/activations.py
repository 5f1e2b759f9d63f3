"""Which activations of a unit may get another step size, and within which bounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.distill.reconstruct.layers import QuantisedLayer, array_of
from trimton.transforms.graph.edit import constant_array, input_at
from trimton.transforms.quantize.bounds import within
from trimton.transforms.quantize.clipping import absorbs, clip_bounds
from trimton.transforms.quantize.encoding import LIMITS, Encoding

_EVERYWHERE = (float("-inf"), float("inf"))


@dataclass(frozen=True)
class ActivationStep:
    """The constants ``scale`` and ``zero_point`` of activations, and what they are by now.

    ``bounds`` are those of the activation function that the integers stand for: their range must
    not leave them. ``moves_zero`` tells whether the zero point may be another one.
    """

    scale: str
    zero_point: str | None
    encoding: Encoding
    bounds: tuple[float, float]
    moves_zero: bool

    def moved(self, scale: float, zero_point: int) -> Encoding:
        """The encoding with these, inside the bounds."""
        new = Encoding(
            self.encoding.dtype,
            np.asarray(scale, np.float32),
            np.asarray(zero_point, self.encoding.zero_point.dtype),
        )
        return within(new, self.bounds)


def activation_steps(
    model: ir.Model, part: ir.Model, layers: Sequence[QuantisedLayer]
) -> tuple[ActivationStep, ...]:
    """Those that only ``part`` of ``model`` reads and the biases of ``layers`` depend on."""
    by_scale: dict[str, list[ir.Node]] = {}
    for node in part.graph:
        scale = input_at(node, 1)
        if node.op_type == "QuantizeLinear" and not node.domain and scale is not None:
            by_scale.setdefault(scale.name or "", []).append(node)
    whole = _uses(model)
    tuned = {layer.node for layer in layers}
    return tuple(
        _step(part, nodes[0], nodes)
        for nodes in by_scale.values()
        if _is_simple(nodes[0]) and all(_is_inside(node, whole, tuned) for node in nodes)
    )


def _step(part: ir.Model, node: ir.Node, nodes: Sequence[ir.Node]) -> ActivationStep:
    scale, zero = node.inputs[1], input_at(node, 2)
    assert scale is not None
    name = None if zero is None else zero.name
    point = np.zeros((), np.uint8) if name is None else array_of(part, name)
    dtype = ir.DataType.UINT8 if zero is None or zero.dtype is None else zero.dtype
    encoding = Encoding(dtype, array_of(part, scale.name or "").reshape(()), point.reshape(()))
    bounds = [_bounds(node) for node in nodes]
    low, high = max(b[0] for b in bounds), min(b[1] for b in bounds)
    ends = LIMITS[dtype]
    fixed = {ends[0], ends[1], (sum(ends) + 1) // 2}
    is_free = (low, high) == _EVERYWHERE and int(encoding.zero_point) not in fixed
    return ActivationStep(
        scale=scale.name or "",
        zero_point=name,
        encoding=encoding,
        bounds=(low, high),
        moves_zero=is_free and zero is not None and len(tuple(zero.uses())) == _readers(nodes),
    )


def _readers(nodes: Sequence[ir.Node]) -> int:
    return sum(1 + len(tuple(node.outputs[0].uses())) for node in nodes)


def _bounds(node: ir.Node) -> tuple[float, float]:
    """Where the activation function cuts whose output ``node`` rounds."""
    producer = None if node.inputs[0] is None else node.inputs[0].producer()
    if producer is None or not absorbs(producer):
        return _EVERYWHERE
    low, high = clip_bounds(producer)
    return (_EVERYWHERE[0] if low is None else low, _EVERYWHERE[1] if high is None else high)


def _is_simple(node: ir.Node) -> bool:
    """Whether ``node`` has one scale for all, and integers of 8 bits."""
    scale, zero = constant_array(node.inputs[1]), constant_array(input_at(node, 2))
    is_known = scale is not None and scale.size == 1 and scale.dtype == np.float32
    return is_known and (zero is None or zero.dtype in (np.uint8, np.int8))


def _is_inside(node: ir.Node, whole: dict[str, int], tuned: set[str]) -> bool:
    """Whether nothing outside the part depends on the step of the QuantizeLinear ``node``."""
    readers = [use.node for use in node.outputs[0].uses()]
    values = [node.inputs[1], node.outputs[0], *(reader.outputs[0] for reader in readers)]
    return all(
        reader.op_type == "DequantizeLinear" and reader.inputs[1] is node.inputs[1]
        for reader in readers
    ) and all(
        value is not None
        and len(tuple(value.uses())) == whole[value.name or ""]
        and all(user.name in tuned for user in _biased(value))
        for value in values
    )


def _biased(value: ir.Value) -> Iterator[ir.Node]:
    """The readers of ``value`` that add a bias in integers, whose scale follows."""
    for use in value.uses():
        bias = input_at(use.node, 2) if use.node.op_type in {"Conv", "Gemm"} else None
        source = None if bias is None else bias.producer()
        if source is not None and source.op_type == "DequantizeLinear":
            yield use.node


def _uses(model: ir.Model) -> dict[str, int]:
    """How often every value of the main graph is read, by name."""
    values = [*model.graph.initializers.values(), *(v for n in model.graph for v in n.outputs)]
    return {value.name or "": len(tuple(value.uses())) for value in values}
