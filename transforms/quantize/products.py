"""Products of rows and one constant matrix, and look-ups in constant tables, in every graph.

They can be stored in fewer bits without a look at activations: what a branch or the body of a
loop computes is no different from the main graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, constant, constant_array, input_at
from trimton.transforms.report import Skipped

_FUSED = "an operator outside the ONNX standard; take the model from before it was fused"
# Fewer numbers than these weigh less than what a node and its scales add.
LEAST_NUMBERS = 4096


@dataclass(frozen=True)
class Product:
    """``y = x W + bias``: a MatMul or Gemm whose second factor is constant.

    ``is_transposed`` says that the constant is W', ``factor`` multiplies it (alpha of Gemm).
    ``bias`` is a constant [outputs] (beta included) or None.
    """

    node: ir.Node
    weight: ir.Value
    is_transposed: bool = False
    factor: float = 1.0
    bias: Array | None = None

    @property
    def name(self) -> str:
        """The node's name, or that of its output."""
        return name_of(self.node)

    @property
    def terms(self) -> int:
        """How many products each output sums."""
        return _sizes(self.weight)[1 if self.is_transposed else 0]

    def rows(self) -> Array:
        """W', float32 [outputs, terms]: one row for each output."""
        array = constant_array(self.weight)
        if array is None:
            raise ValueError(f"{self.weight.name} is no constant")
        rows = array if self.is_transposed else array.T
        return np.ascontiguousarray(rows, np.float32) * np.float32(self.factor)


@dataclass(frozen=True)
class Table:
    """A Gather along axis 0 of the constant ``weight`` [rows, columns]."""

    node: ir.Node
    weight: ir.Value

    @property
    def name(self) -> str:
        """The node's name, or that of its output."""
        return name_of(self.node)

    @property
    def terms(self) -> int:
        """The number of columns."""
        return _sizes(self.weight)[1]

    def rows(self) -> Array:
        """The table, float32 [rows, columns]."""
        array = constant_array(self.weight)
        if array is None:
            raise ValueError(f"{self.weight.name} is no constant")
        return np.ascontiguousarray(array, np.float32)


Site = Product | Table


@dataclass(frozen=True)
class Found:
    """What can be stored in fewer bits, in graph order, and what cannot and why."""

    products: tuple[Product, ...]
    tables: tuple[Table, ...]
    skipped: tuple[Skipped, ...]


def name_of(node: ir.Node) -> str:
    """The node's name, or that of its output."""
    return node.name or node.outputs[0].name or ""


def find_sites(model: ir.Model, no_kernel: Mapping[str, str]) -> Found:
    """The products and tables of ``model``, which is in normal form.

    ``no_kernel`` says of other operators why they stay in float, by their type.
    """
    found: list[Site] = []
    skipped: list[Skipped] = []
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        rule = None if node.domain else _RULES.get(node.op_type)
        if rule is not None:
            site = rule(node)
            if not isinstance(site, str):
                found.append(site)
            elif site:
                skipped.append(Skipped(name_of(node), site))
        elif not node.domain and node.op_type in no_kernel:
            skipped.append(Skipped(name_of(node), no_kernel[node.op_type]))
        elif node.domain and any(_is_large(constant(value)) for value in node.inputs):
            skipped.append(Skipped(name_of(node), _FUSED))
    alone = [site for site in found if not (reader := _other_reader(site, found))]
    skipped += [
        Skipped(site.name, f"{reader} reads its weight, too, which would be stored twice")
        for site in found
        if (reader := _other_reader(site, found))
    ]
    return Found(
        tuple(site for site in alone if isinstance(site, Product)),
        tuple(site for site in alone if isinstance(site, Table)),
        tuple(skipped),
    )


def _sizes(weight: ir.Value) -> tuple[int, ...]:
    tensor = constant(weight)
    if tensor is None:
        raise ValueError(f"{weight.name} is no constant")
    return tuple(int(size) for size in tensor.shape.numpy())


def _other_reader(site: Site, found: Sequence[Site]) -> str:
    """A reader of the weight of ``site`` that keeps it in float; "" where there is none."""
    if site.weight.is_graph_output():
        return "an output of the graph"
    nodes = {one.node for one in found}
    others = (name_of(user) for user, _ in site.weight.uses() if user not in nodes)
    return next(others, "")


def _product(node: ir.Node) -> Product | str:
    weight = node.inputs[1]
    tensor = constant(weight)
    if weight is None or tensor is None:
        return _without_weight(node)
    if reason := _unfit(tensor):
        return reason
    if node.op_type == "MatMul":
        rows = node.inputs[0]
        if rows is not None and rows.shape is not None and len(rows.shape) < 2:
            return "it multiplies a single row without an axis of rows"
        return Product(node, weight)
    return _gemm(node, weight, tensor)


def _gemm(node: ir.Node, weight: ir.Value, tensor: ir.TensorProtocol) -> Product | str:
    if node.attributes.get_int("transA", 0):
        return "it reads its rows transposed"
    is_transposed = bool(node.attributes.get_int("transB", 0))
    outputs = tensor.shape.numpy()[0 if is_transposed else 1]
    bias, addend = None, input_at(node, 2)
    if addend is not None:
        array = constant_array(addend)
        if array is None or array.size not in (1, outputs) or array.size != array.shape[-1:][0]:
            return "what it adds is no constant vector"
        beta = node.attributes.get_float("beta", 1.0) or 0.0
        bias = np.broadcast_to(array.reshape(-1) * np.float32(beta), outputs).astype(np.float32)
    factor = node.attributes.get_float("alpha", 1.0) or 0.0
    return Product(node, weight, is_transposed, factor, bias)


def _without_weight(node: ir.Node) -> str:
    if constant(node.inputs[0]) is not None:
        return "its weight is the first factor"
    return "it multiplies two activations"


def _unfit(tensor: ir.TensorProtocol) -> str:
    if tensor.dtype != ir.DataType.FLOAT:
        return f"its weight is {tensor.dtype}, and float32 is what becomes integers"
    if len(tensor.shape) != 2:
        return f"its weight has {len(tensor.shape)} axes, and the kernels take 2"
    if tensor.size < LEAST_NUMBERS:
        return f"its weight is small (fewer than {LEAST_NUMBERS} numbers)"
    return ""


def _table(node: ir.Node) -> Table | str:
    """A Gather of anything but a large constant of floats is none, and needs no reason."""
    weight = node.inputs[0]
    tensor = constant(weight)
    if weight is None or tensor is None or not _is_large(tensor):
        return ""
    if len(tensor.shape) != 2 or node.attributes.get_int("axis", 0) not in (0, -2):
        return "it looks up no rows of a table of 2 axes"
    return Table(node, weight)


def _is_large(tensor: ir.TensorProtocol | None) -> bool:
    """Whether ``tensor`` holds floats that are worth fewer bits."""
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT and tensor.size >= LEAST_NUMBERS


_RULES: Mapping[str, Callable[[ir.Node], Site | str]] = {
    "Gather": _table,
    "Gemm": _product,
    "MatMul": _product,
}
