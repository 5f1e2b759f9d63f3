"""Operators that treat every element alone: axes are passed on as broadcasting aligns them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from trimton.transforms.graph.edit import input_at
from trimton.transforms.prune.relations.relation import Relation
from trimton.transforms.prune.ties import Ties


def elementwise(node: ir.Node, ties: Ties) -> None:
    """Every input and every output is aligned with the first output."""
    for value in (*node.inputs, *node.outputs[1:]):
        if value is not None and value.name:
            ties.broadcast(value, node.outputs[0])


def of_first_input(node: ir.Node, ties: Ties) -> None:
    """Only the first input is an array like the output: the others are settings."""
    for value in (node.inputs[0], *node.outputs[1:]):
        if value is not None and value.name:
            ties.broadcast(value, node.outputs[0])
    for value in node.inputs[1:]:
        ties.freeze_value(value, f"it is a setting of {node.op_type}")


def bias_gelu(node: ir.Node, ties: Ties) -> None:
    """com.microsoft BiasGelu, FastGelu: an optional bias [C] is added first."""
    ties.broadcast(node.inputs[0], node.outputs[0])
    if (bias := input_at(node, 1)) is not None:
        ties.broadcast(bias, node.outputs[0])


_ELEMENTWISE = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr
    BitwiseXor Cast CastLike Ceil Celu Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater
    GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max
    Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin
    Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor
"""
_OF_FIRST_INPUT = "Clip Dropout"
_CONTRIBUTED = "FastGelu Gelu QuickGelu BiasGelu"

RELATIONS: Mapping[tuple[str, str], Relation] = {
    **{("", name): elementwise for name in _ELEMENTWISE.split()},
    **{("", name): of_first_input for name in _OF_FIRST_INPUT.split()},
    **{("com.microsoft", name): bias_gelu for name in _CONTRIBUTED.split()},
}
