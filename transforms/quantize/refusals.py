"""Why a node does not fit the 8-bit kernel of its operator; None where it does."""

from __future__ import annotations

import onnx_ir as ir

from trimton.transforms.graph.edit import constant, constant_array, input_at
from trimton.transforms.graph.shapes import known_dims
from trimton.transforms.quantize.roles import scaling, weight_axis

# A smaller table is not worth a DequantizeLinear of its own.
TABLE_MIN_BYTES = 4096


def conv_refusal(node: ir.Node) -> str | None:
    """Conv: weight and bias are constants."""
    if constant(input_at(node, 1)) is None:
        return "its weight is computed"
    if input_at(node, 2) is not None and constant(input_at(node, 2)) is None:
        return "its bias is computed"
    return None


def gemm_refusal(node: ir.Node) -> str | None:
    """Gemm: plain rows times a constant matrix plus a vector of constants."""
    bias = input_at(node, 2)
    if node.attributes.get_int("transA", 0):
        return "its first input is transposed"
    if node.attributes.get_float("alpha", 1.0) != 1.0:
        return "its alpha is not 1"
    if constant(input_at(node, 1)) is None:
        return "its weight is computed"
    if bias is None:
        return None
    if node.attributes.get_float("beta", 1.0) != 1.0:
        return "its beta is not 1"
    values, weight = constant_array(bias), constant_array(input_at(node, 1))
    if values is None or weight is None:
        return "its bias is computed"
    axis = weight_axis(node, 2)
    if axis is None or values.size != weight.shape[axis] or max(values.shape) != values.size:
        return "its bias is no vector of its outputs"
    return None


def matmul_refusal(node: ir.Node) -> str | None:
    """MatMul: rows times a matrix, or two activations."""
    left, right = constant(input_at(node, 0)), constant(input_at(node, 1))
    if left is not None:
        return "its first operand is constant"
    if right is not None and len(right.shape) < 2:
        return "its weight is a vector"
    return None


def small_product_refusal(node: ir.Node, least: int | None) -> str | None:
    """MatMul of two activations: whether its conversions pay.

    Both factors, and often what becomes of the product, are converted for it alone, and there are
    no weights to make smaller. The multiply-accumulates for each number converted grow with the
    smallest dimension, of which ``least`` are needed; no number suffices where that is None. In
    attention it is the size of a head.
    """
    left, right = (known_dims(value) for value in node.inputs[:2])
    if constant(input_at(node, 1)) is not None or left is None or right is None:
        return None
    if least is None:
        return "it multiplies two activations, which is no faster in 8 bits"
    known = [size for size in (*left[-2:], right[-1]) if size is not None]
    if not known or min(known) < least:
        return f"it multiplies two activations of fewer than {least} columns or rows"
    return None


def division_refusal(node: ir.Node) -> str | None:
    """Div: by one positive constant, which is a scaling."""
    return None if scaling(node) is not None else "it does not divide by a positive constant"


def pool_refusal(node: ir.Node) -> str | None:
    """MaxPool: for its values alone."""
    if any(output.name and tuple(output.uses()) for output in node.outputs[1:]):
        return "its indices are used"
    return None


def average_pool_refusal(node: ir.Node) -> str | None:
    """AveragePool: over a window without holes."""
    if any(size != 1 for size in node.attributes.get_ints("dilations", None) or ()):
        return "its window is dilated"
    return None


def resize_refusal(node: ir.Node) -> str | None:
    """Resize: numbers are repeated, not mixed."""
    if node.attributes.get_string("mode", "nearest") != "nearest":
        return "it interpolates"
    return None


def move_refusal(node: ir.Node) -> str | None:
    """What only moves numbers: of an activation."""
    return None if constant(input_at(node, 0)) is None else "it moves a constant"


def gather_refusal(node: ir.Node) -> str | None:
    """Gather: of an activation, or of a table of rows that is worth it."""
    table = constant(input_at(node, 0))
    if table is None:
        return None
    if len(table.shape) != 2 or node.attributes.get_int("axis", 0) != 0:
        return "what it picks from is no table of rows"
    if table.nbytes < TABLE_MIN_BYTES:
        return "its table is small"
    return None
