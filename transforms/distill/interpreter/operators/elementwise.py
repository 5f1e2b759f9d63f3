"""Operators on single elements, with broadcasting."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional as F

from trimton.transforms.distill.interpreter.dtypes import torch_type
from trimton.transforms.distill.interpreter.node import Kernel, NodeView
from trimton.transforms.distill.interpreter.operators.table import Builder, plain

Combine = Callable[[Tensor, Tensor], Tensor]


def _divide(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype.is_floating_point:
        return torch.div(a, b)
    return torch.div(a, b, rounding_mode="trunc")


def _power(a: Tensor, b: Tensor) -> Tensor:
    """a^b in the type of a."""
    return torch.pow(a, b).to(a.dtype)


def power(view: NodeView) -> Kernel:
    """Pow; a known exponent is a plain number, for which torch has quicker kernels."""
    exponent = view.known_number(1)
    if exponent is None or not float(exponent).is_integer():
        return _power
    exponent = int(exponent)
    return lambda a, _: torch.pow(a, exponent)


def modulo(view: NodeView) -> Kernel:
    """The remainder with the sign of the divisor, or of the dividend (``fmod``)."""
    return torch.fmod if view.flag("fmod") else torch.remainder


def clip(view: NodeView) -> Kernel:
    """Bounds from attributes (before operator set 11) or inputs."""
    if view.opset < 11:
        low, high = view.number("min", -torch.inf), view.number("max", torch.inf)
        return lambda x: torch.clamp(x, low, high)
    known = [view.known_number(index) for index in (1, 2)]
    if all(bound is not None or not view.has(i) for i, bound in enumerate(known, 1)):
        low_known, high_known = known
        if low_known is None and high_known is None:
            return lambda x, *_: x
        return lambda x, *_: torch.clamp(x, low_known, high_known)

    def run(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        x = x if low is None else torch.maximum(x, low)
        return x if high is None else torch.minimum(x, high)

    return run


def variadic(combine: Combine) -> Builder:
    """An operator that joins any number of inputs."""
    return plain(lambda *inputs: functools.reduce(combine, inputs))


def mean(*inputs: Tensor) -> Tensor:
    """The mean of all inputs."""
    return functools.reduce(torch.add, inputs) / len(inputs)


def cast(view: NodeView) -> Kernel:
    """To the type that the attribute ``to`` names."""
    return _to(torch_type(ir.DataType(view.integer("to", 1)), f"the result of {view.node.name}"))


def cast_like(view: NodeView) -> Kernel:
    """To the type of the second input."""
    like = view.node.inputs[1]
    if like is not None and like.dtype is not None:
        torch_type(like.dtype, f"the result of {view.node.name}")
    return lambda x, like: x.to(like.dtype)


def _to(dtype: torch.dtype) -> Kernel:
    return lambda x: x.to(dtype)


def leaky_relu(view: NodeView) -> Kernel:
    """x below zero is multiplied by ``alpha``."""
    alpha = view.number("alpha", 0.01)
    return lambda x: F.leaky_relu(x, alpha)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """x below zero is multiplied by a slope that is broadcast to x."""
    return torch.where(x < 0, x * slope, x)


def elu(view: NodeView) -> Kernel:
    """alpha (e^x - 1) below zero."""
    alpha = view.number("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


def celu(view: NodeView) -> Kernel:
    """alpha (e^(x / alpha) - 1) below zero."""
    alpha = view.number("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


def selu(view: NodeView) -> Kernel:
    """gamma (alpha e^x - alpha) below zero, gamma x above."""
    alpha = view.number("alpha", 1.67326319217681884765625)
    gamma = view.number("gamma", 1.05070102214813232421875)
    return lambda x: gamma * F.elu(x, alpha)


def thresholded_relu(view: NodeView) -> Kernel:
    """x above ``alpha``, else 0."""
    alpha = view.number("alpha", 1.0)
    return lambda x: F.threshold(x, alpha, 0.0)


def shrink(view: NodeView) -> Kernel:
    """x moved towards 0 by ``bias`` beyond ``lambd``, else 0."""
    bias, bound = view.number("bias", 0.0), view.number("lambd", 0.5)

    def run(x: Tensor) -> Tensor:
        moved = torch.where(x < -bound, x + bias, x - bias)
        return torch.where(x.abs() > bound, moved, torch.zeros_like(x))

    return run


def hard_sigmoid(view: NodeView) -> Kernel:
    """max(0, min(1, alpha x + beta))."""
    alpha, beta = view.number("alpha", 0.2), view.number("beta", 0.5)
    return lambda x: torch.clamp(x * alpha + beta, 0.0, 1.0)


def gelu(view: NodeView) -> Kernel:
    """x times the normal distribution function, exact or by tanh (Hendrycks and Gimpel, 2016)."""
    approximate = view.text("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


def swish(view: NodeView) -> Kernel:
    """x times the sigmoid of alpha x."""
    alpha = view.number("alpha", 1.0)
    return lambda x: x * torch.sigmoid(alpha * x)


def is_inf(view: NodeView) -> Kernel:
    """Infinities of the signs asked for."""
    negative, positive = view.flag("detect_negative", True), view.flag("detect_positive", True)

    def run(x: Tensor) -> Tensor:
        signs = (x > 0) & positive | (x < 0) & negative
        return torch.isinf(x) & signs

    return run


def bit_shift(view: NodeView) -> Kernel:
    """Bits to the left or to the right."""
    if view.text("direction", "LEFT") == "LEFT":
        return torch.bitwise_left_shift
    return torch.bitwise_right_shift


_PLAIN: Mapping[str, Kernel] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Add": torch.add,
    "And": torch.logical_and,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseNot": torch.bitwise_not,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Div": _divide,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "HardSwish": F.hardswish,
    "Identity": lambda x: x,
    "IsNaN": torch.isnan,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "Mean": mean,
    "Mish": F.mish,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "PRelu": prelu,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "Where": torch.where,
    "Xor": torch.logical_xor,
}

OPERATORS: Mapping[tuple[str, str], Builder] = {
    **{("", name): plain(function) for name, function in _PLAIN.items()},
    ("", "BitShift"): bit_shift,
    ("", "Cast"): cast,
    ("", "CastLike"): cast_like,
    ("", "Celu"): celu,
    ("", "Clip"): clip,
    ("", "Elu"): elu,
    ("", "Gelu"): gelu,
    ("", "HardSigmoid"): hard_sigmoid,
    ("", "IsInf"): is_inf,
    ("", "LeakyRelu"): leaky_relu,
    ("", "Max"): variadic(torch.maximum),
    ("", "Min"): variadic(torch.minimum),
    ("", "Mod"): modulo,
    ("", "Pow"): power,
    ("", "Selu"): selu,
    ("", "Shrink"): shrink,
    ("", "Sum"): variadic(torch.add),
    ("", "Swish"): swish,
    ("", "ThresholdedRelu"): thresholded_relu,
}
