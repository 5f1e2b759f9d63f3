"""Padding: what a Pad node adds, and its folding into the operator after it.

``Conv(Pad(x))`` with constant zeros over the spatial axes is a Conv that pads by itself. The
same holds for AveragePool where the padding is counted (``count_include_pad``), and for MaxPool
where the padding is the lowest value, which never wins against one that is inside the window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.fuse.family import Family, Match, at_nodes
from trimton.transforms.graph.edit import Editor, constant_array, erase, input_at
from trimton.transforms.graph.shapes import known_dims

_PADS_IS_AN_INPUT = 11


@dataclass(frozen=True)
class Pads:
    """What a Pad node adds before (``begins``) and after (``ends``) each axis of its input."""

    begins: tuple[int, ...]
    ends: tuple[int, ...]
    mode: str
    value: float

    @property
    def is_empty(self) -> bool:
        """Whether nothing is added anywhere."""
        return not any(self.begins) and not any(self.ends)


def pads_of(node: ir.Node, editor: Editor) -> Pads | str:
    """What the Pad ``node`` adds, or why that is not known."""
    mode = node.attributes.get_string("mode", "constant") or "constant"
    if editor.opset < _PADS_IS_AN_INPUT:
        pads = list(node.attributes.get_ints("pads", ()) or ())
        value = node.attributes.get_float("value", 0.0) or 0.0
        half = len(pads) // 2
        return Pads(tuple(pads[:half]), tuple(pads[half:]), mode, value)
    amounts = constant_array(input_at(node, 1))
    if amounts is None:
        return "how much it pads is not constant"
    fill = constant_array(input_at(node, 2))
    if fill is None and input_at(node, 2) is not None:
        return "what it pads with is not constant"
    number = 0.0 if fill is None or fill.dtype.kind not in "fiub" else float(fill.reshape(-1)[0])
    begins, ends = (tuple(int(n) for n in half) for half in np.split(amounts.reshape(-1), 2))
    if input_at(node, 3) is None:
        return Pads(begins, ends, mode, number)
    axes, dims = constant_array(input_at(node, 3)), known_dims(input_at(node, 0))
    if axes is None or dims is None:
        return "which axes it pads is not known"
    places = [int(axis) % len(dims) for axis in axes]
    by_axis = dict(zip(places, zip(begins, ends, strict=True), strict=True))
    spread = [by_axis.get(axis, (0, 0)) for axis in range(len(dims))]
    return Pads(tuple(b for b, _ in spread), tuple(e for _, e in spread), mode, number)


def _accepts_zeros(node: ir.Node, pads: Pads, own: list[int]) -> str | None:
    return None if pads.value == 0 else f"it pads with {pads.value:g}, and Conv with 0"


def _average_counts_zeros(node: ir.Node, pads: Pads, own: list[int]) -> str | None:
    if pads.value != 0:
        return f"it pads with {pads.value:g}, and AveragePool with 0"
    if any(own) and not node.attributes.get_int("count_include_pad", 0):
        return "the AveragePool leaves its own padding out of the average"
    return _fits_the_window(node, pads, own)


def _never_wins(node: ir.Node, pads: Pads, own: list[int]) -> str | None:
    if pads.value > np.finfo(np.float32).min:
        return f"it pads with {pads.value:g}, which can win against a value in the window"
    return _fits_the_window(node, pads, own)


def _fits_the_window(node: ir.Node, pads: Pads, own: list[int]) -> str | None:
    """Pooling operators must pad less than their window is wide, and round down to be sure."""
    if node.attributes.get_int("ceil_mode", 0):
        return f"the {node.op_type} rounds its size up, which depends on who pads"
    kernel = list(node.attributes.get_ints("kernel_shape", ()) or ())
    total = _added(pads, own)
    if any(pad >= size for pad, size in zip(total, kernel + kernel, strict=True)):
        return f"it pads as much as the window of the {node.op_type} is wide"
    return None


# Operator -> why its own padding cannot stand for that of the Pad before it; None where it can.
CONSUMERS: Mapping[str, Callable[[ir.Node, Pads, list[int]], str | None]] = {
    "AveragePool": _average_counts_zeros,
    "Conv": _accepts_zeros,
    "MaxPool": _never_wins,
}


def _fuse(node: ir.Node, editor: Editor) -> Match:
    source = input_at(node, 0)
    pad = None if source is None else source.producer()
    if source is None or pad is None or pad.op_type != "Pad" or pad.domain:
        return False
    pads = pads_of(pad, editor)
    if isinstance(pads, str):
        return f"the Pad before it stays: {pads}"
    own = _own_pads(node, len(pads.begins) - 2)
    if isinstance(own, str):
        return f"the Pad before it stays: {own}"
    if reason := _not_spatial_constant(pads) or CONSUMERS[node.op_type](node, pads, own):
        return f"the Pad before it stays: {reason}"
    node.attributes.pop("auto_pad", None)
    node.attributes["pads"] = ir.AttrInt64s("pads", _added(pads, own))
    if node.op_type == "AveragePool":
        node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
    node.replace_input_with(0, pad.inputs[0])
    if not source.uses() and not source.is_graph_output():
        erase(pad)
    return True


def _not_spatial_constant(pads: Pads) -> str | None:
    if pads.mode != "constant":
        return f"its mode is {pads.mode}"
    if min((*pads.begins, *pads.ends)) < 0:
        return "it crops"
    if any((*pads.begins[:2], *pads.ends[:2])):
        return "it pads the batch or the channels"
    return None


def _own_pads(node: ir.Node, rank: int) -> list[int] | str:
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    if auto_pad not in ("NOTSET", "VALID"):
        return f"the {node.op_type} pads by itself ({auto_pad})"
    return list(node.attributes.get_ints("pads", ()) or [0] * (2 * rank))


def _added(pads: Pads, own: list[int]) -> list[int]:
    both = (*pads.begins[2:], *pads.ends[2:])
    return [a + b for a, b in zip(both, own, strict=True)]


PADS = Family("pads", "let Conv and pooling pad by themselves", at_nodes(*CONSUMERS, rule=_fuse))
