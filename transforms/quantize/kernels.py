"""Operators that compute on 8-bit values, and on which conditions.

What ONNX Runtime's CPU provider turns from the QDQ form into an 8-bit kernel, or lets pass
8-bit values unchanged. An operator that is missing here stays in float: a QuantizeLinear beside
it would only add work. tests/transforms/quantize/test_targets.py holds this table against the
runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import onnx_ir as ir

from trimton.transforms.graph.edit import constant, constant_array, input_at
from trimton.transforms.graph.shapes import known_dims


class Role(Enum):
    """What an operator is to quantisation.

    A LAYER is worth quantising for itself. A LINK joins where what it reads is in integers
    anyway. So does a MOVE, whose numbers keep their encoding, and a SCALE, whose integers stay
    the same and get another scale. A TABLE holds rows of numbers that are looked up.
    """

    LAYER = "layer"
    LINK = "link"
    MOVE = "move"
    SCALE = "scale"
    TABLE = "table"

    @property
    def joins_neighbours(self) -> bool:
        """Whether it is computed in integers only where its neighbours are."""
        return self in (Role.LINK, Role.MOVE, Role.SCALE)


def _fits(node: ir.Node) -> str | None:
    return None


@dataclass(frozen=True)
class Kernel:
    """An operator with an 8-bit kernel.

    ``numbers`` are the inputs that it computes with (None: all), ``bias`` the one that is added
    to its sums. ``order`` names the order in which it adds products up, for kernels whose sums
    may saturate. A kernel with ``float_output`` can leave its sums in float, the others need a
    QuantizeLinear behind. One that ``broadcasts`` repeats the smaller operand. ``refusal`` says
    why a node does not fit, None where it does.
    """

    role: Role
    numbers: tuple[int, ...] | None = (0,)
    bias: int | None = None
    order: str | None = None
    float_output: bool = False
    broadcasts: bool = False
    refusal: Callable[[ir.Node], str | None] = _fits

    def number_indices(self, node: ir.Node) -> tuple[int, ...]:
        """The inputs of ``node`` that are numbers to compute with."""
        return tuple(range(len(node.inputs))) if self.numbers is None else self.numbers

    def order_in(self, node: ir.Node) -> str | None:
        """The order of summation in ``node``: a depthwise convolution adds in 32 bits."""
        if self.order is None or _is_depthwise(node):
            return None
        transposed = node.attributes.get_int("transB", 0)
        return f"{self.order}_transposed" if transposed else self.order

    def role_in(self, node: ir.Node) -> Role:
        """The role for ``node``: looking up in a constant is no move, scaling no product."""
        if self.role is Role.MOVE and constant(input_at(node, 0)) is not None:
            return Role.TABLE
        if node.op_type == "Mul" and scaling(node) is not None:
            return Role.SCALE
        return self.role


def _is_depthwise(node: ir.Node) -> bool:
    """Whether ``node`` is a convolution with one channel in and one out for each group."""
    weight = constant(input_at(node, 1)) if node.op_type == "Conv" else None
    groups = node.attributes.get_int("group", 1)
    return weight is not None and tuple(weight.shape.numpy()[:2]) == (groups, 1) and groups != 1


def scaling(node: ir.Node) -> tuple[ir.Value, float] | None:
    """What a Mul or Div scales by a single positive constant, and the factor; else None."""
    orders = [(0, 1), (1, 0)] if node.op_type == "Mul" else [(0, 1)]
    for first, second in orders:
        value, array = node.inputs[first], constant_array(node.inputs[second])
        if value is None or array is None or array.size != 1 or constant(value) is not None:
            continue
        number = float(array.reshape(()))
        dims = known_dims(value)
        if number > 0 and (array.ndim == 0 or (dims is not None and array.ndim <= len(dims))):
            return value, number if node.op_type == "Mul" else 1 / number
    return None


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


def weight_axis(node: ir.Node, rank: int) -> int | None:
    """The axis of the output channels in the weight (input 1) of a layer; None: one for all."""
    match node.op_type:
        case "Conv":
            return 0
        case "Gemm":
            return 0 if node.attributes.get_int("transB", 0) else 1
        case "MatMul" if rank == 2:
            return 1
        case _:
            return None


def _conv(node: ir.Node) -> str | None:
    if constant(input_at(node, 1)) is None:
        return "its weight is computed"
    if input_at(node, 2) is not None and constant(input_at(node, 2)) is None:
        return "its bias is computed"
    return None


def _gemm(node: ir.Node) -> str | None:
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


def _matmul(node: ir.Node) -> str | None:
    left, right = constant(input_at(node, 0)), constant(input_at(node, 1))
    if left is not None:
        return "its first operand is constant"
    if right is not None and len(right.shape) < 2:
        return "its weight is a vector"
    return None


def _division(node: ir.Node) -> str | None:
    return None if scaling(node) is not None else "it does not divide by a positive constant"


def _pool(node: ir.Node) -> str | None:
    if any(output.name and tuple(output.uses()) for output in node.outputs[1:]):
        return "its indices are used"
    return None


def _average_pool(node: ir.Node) -> str | None:
    if any(size != 1 for size in node.attributes.get_ints("dilations", None) or ()):
        return "its window is dilated"
    return None


def _resize(node: ir.Node) -> str | None:
    if node.attributes.get_string("mode", "nearest") != "nearest":
        return "it interpolates"
    return None


def _move(node: ir.Node) -> str | None:
    return None if constant(input_at(node, 0)) is None else "it moves a constant"


def _gather(node: ir.Node) -> str | None:
    table = constant(input_at(node, 0))
    if table is None:
        return None
    if len(table.shape) != 2 or node.attributes.get_int("axis", 0) != 0:
        return "what it picks from is no table of rows"
    if table.nbytes < TABLE_MIN_BYTES:
        return "its table is small"
    return None


# A smaller table is not worth a DequantizeLinear of its own.
TABLE_MIN_BYTES = 4096

_MOVE = Kernel(Role.MOVE, refusal=_move)
_LINK = Kernel(Role.LINK)

KERNELS: Mapping[str, Kernel] = {
    "Add": Kernel(Role.LINK, (0, 1), broadcasts=True),
    "AveragePool": Kernel(Role.LINK, refusal=_average_pool),
    "Concat": Kernel(Role.LINK, None),
    "Conv": Kernel(Role.LAYER, (0, 1), bias=2, order="conv", refusal=_conv),
    "DepthToSpace": _MOVE,
    "Div": Kernel(Role.SCALE, refusal=_division),
    "Expand": _MOVE,
    "Flatten": _MOVE,
    "Gather": Kernel(Role.MOVE, refusal=_gather),
    "GatherElements": _MOVE,
    "Gemm": Kernel(Role.LAYER, (0, 1), bias=2, order="matmul", float_output=True, refusal=_gemm),
    "GlobalAveragePool": _LINK,
    "Identity": _MOVE,
    "LeakyRelu": _LINK,
    "MatMul": Kernel(Role.LAYER, (0, 1), order="matmul", float_output=True, refusal=_matmul),
    "MaxPool": Kernel(Role.MOVE, refusal=_pool),
    "Mul": Kernel(Role.LINK, (0, 1), broadcasts=True),
    "ReduceMax": _MOVE,
    "ReduceMin": _MOVE,
    "Reshape": _MOVE,
    "Resize": Kernel(Role.MOVE, refusal=_resize),
    "Sigmoid": _LINK,
    "Slice": _MOVE,
    "Split": _MOVE,
    "Squeeze": _MOVE,
    "Tile": _MOVE,
    "Transpose": _MOVE,
    "Unsqueeze": _MOVE,
}

# Activations that the runtime drops between an 8-bit kernel and the quantisation of its output:
# the range of the quantised tensor, which ends where they cut, does their work.
ABSORBED = frozenset({"Clip", "Relu"})
