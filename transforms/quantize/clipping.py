"""Activation functions that cut: what stands for them is the end of a quantised range."""

from __future__ import annotations

import onnx_ir as ir

from trimton.transforms.graph.edit import constant_array, input_at

# Activations that the runtime drops between an 8-bit kernel and the quantisation of its output:
# the range of the quantised tensor, which ends where they cut, does their work.
ABSORBED = frozenset({"Clip", "Relu"})


def absorbs(node: ir.Node) -> bool:
    """Whether a quantised output can stand for the activation function ``node``.

    Its range holds zero and ends where the function cuts: a Clip must let zero pass.
    """
    if node.op_type not in ABSORBED or node.domain:
        return False
    low, high = clip_bounds(node)
    return low is not None and high is not None and low <= 0.0 <= high


def clip_bounds(node: ir.Node) -> tuple[float | None, float | None]:
    """The smallest and the largest output of a Relu or Clip; None where it is computed."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    return _bound(input_at(node, 1), float("-inf")), _bound(input_at(node, 2), float("inf"))


def _bound(value: ir.Value | None, absent: float) -> float | None:
    if value is None:
        return absent
    array = constant_array(value)
    return None if array is None else float(array.reshape(()))
