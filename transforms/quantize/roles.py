"""What an operator with an 8-bit kernel is to quantisation, and how its kernel computes."""

from __future__ import annotations

from collections.abc import Callable
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


def _is_depthwise(node: ir.Node) -> bool:
    """Whether ``node`` is a convolution with one channel in and one out for each group."""
    weight = constant(input_at(node, 1)) if node.op_type == "Conv" else None
    groups = node.attributes.get_int("group", 1)
    return weight is not None and tuple(weight.shape.numpy()[:2]) == (groups, 1) and groups != 1


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
