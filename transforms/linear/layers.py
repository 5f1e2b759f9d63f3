"""The linear layers of a graph: nodes whose output is a constant matrix times what they read.

A convolution is linear in the patches that it reads, a grouped one group by group; Gemm and
MatMul are linear in rows. Whatever looks like a layer and is none is named, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.graph.edit import Array, Editor, constant
from trimton.transforms.graph.normalise import normalise
from trimton.transforms.graph.quantised import quantised_nodes
from trimton.transforms.graph.shapes import infer_shapes, restored_declarations
from trimton.transforms.graph.tensors import subgraphs_of
from trimton.transforms.prune.constants import Shift, apply_shift
from trimton.transforms.prune.refit.features import as_weight, weight_matrix
from trimton.transforms.prune.ties import Layer
from trimton.transforms.report import Skipped

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE})


@dataclass(frozen=True)
class LinearLayer:
    """One node with its constant weight; ``groups`` is 1 but for grouped convolutions.

    ``kernel`` are the sizes of a convolution's kernel, () for a matrix product.
    """

    layer: Layer
    groups: int
    kernel: tuple[int, ...]

    @property
    def name(self) -> str:
        """The node's name, or that of its output."""
        return self.layer.node.name or self.output

    @property
    def output(self) -> str:
        """The name of the value that the layer makes."""
        return self.layer.node.outputs[0].name or ""

    @property
    def activation(self) -> ir.Value:
        """What the layer reads by now: a constant may have come behind what it read before."""
        value = self.layer.node.inputs[0]
        if value is None:
            raise ValueError("the layer reads nothing")
        return value

    @property
    def read(self) -> str:
        """The name of the value that the layer reads by now."""
        return self.activation.name or ""

    @property
    def channel_axis(self) -> int:
        """The axis of the output that the weights make."""
        return 1 if self.kernel else -1

    @property
    def shape(self) -> tuple[int, int, int]:
        """(groups, features, outputs of a group)."""
        tensor = constant(self.layer.weight)
        sizes = () if tensor is None else tensor.shape.numpy()
        outputs = sizes[self.layer.outputs]
        return self.groups, prod(sizes) // outputs, outputs // self.groups

    def matrices(self) -> Array:
        """The weights, float64 [groups, features, outputs of a group].

        Features are the input channels of a group and, within each, the kernel's places.
        """
        flat = weight_matrix(self.layer).astype(np.float64)
        return np.moveaxis(flat.reshape(len(flat), self.groups, -1), 1, 0)

    def as_weight(self, matrices: Array) -> Array:
        """The inverse of ``matrices``: the array of the node's weight, of its type."""
        flat = np.moveaxis(matrices, 0, 1).reshape(matrices.shape[1], -1)
        return as_weight(self.layer, flat)

    def set_matrices(self, matrices: Array) -> None:
        """Replace the weights of the node, in place."""
        weight = self.layer.weight
        weight.const_value = ir.tensor(self.as_weight(matrices), name=weight.name)

    def add_constant(self, amount: Array, editor: Editor) -> None:
        """Add ``amount`` [outputs of all groups] to what the node makes, in place."""
        apply_shift(Shift(self.layer.node, amount), editor)


@dataclass(frozen=True)
class LinearLayers:
    """The linear layers of a main graph in its order, and what is none of them and why."""

    layers: tuple[LinearLayer, ...]
    skipped: tuple[Skipped, ...]


def prepared(model: ir.Model, what: str) -> ir.Model:
    """A copy of ``model`` in normal form with shapes inside; ``what`` is to be done to it.

    Raises UnsupportedModelError for a quantised model.
    """
    if nodes := quantised_nodes(model):
        raise UnsupportedModelError(
            f"the model is already quantised ({nodes[0]} is one of {len(nodes)} such nodes); "
            f"{what} the float model, then quantise the result."
        )
    work = normalise(model.clone(), keep_default_inputs=True)
    with restored_declarations(work):
        infer_shapes(work)
    return work


def find_linear_layers(model: ir.Model) -> LinearLayers:
    """The linear layers of the main graph of ``model``, which is in normal form."""
    found: list[LinearLayer] = []
    skipped: list[Skipped] = []
    for node in model.graph:
        name = node.name or node.outputs[0].name or ""
        if subgraphs_of(node):
            skipped.append(Skipped(name, "control flow: layers inside its bodies are left alone"))
        rule = _RULES.get(node.op_type)
        if rule is None or node.domain:
            continue
        layer = rule(node)
        why = layer if isinstance(layer, str) else _why_not(layer.layer.weight)
        if isinstance(layer, LinearLayer) and why is None:
            found.append(layer)
        else:
            skipped.append(Skipped(name, str(why)))
    return LinearLayers(tuple(found), tuple(skipped))


def _why_not(weight: ir.Value) -> str | None:
    """Why ``weight``, which is constant, cannot be replaced for one node; None if it can."""
    tensor = constant(weight)
    if tensor is None or tensor.dtype not in _FLOATS:
        return "its weight is no floating-point number that numpy has"
    if len(tuple(weight.uses())) > 1 or weight.is_graph_output():
        return "its weight is used elsewhere, too"
    return None


def _convolution(node: ir.Node) -> LinearLayer | str:
    data, weight = node.inputs[0], node.inputs[1]
    tensor = constant(weight)
    if data is None or weight is None or tensor is None:
        return "its weight is computed"
    groups = node.attributes.get_int("group", 1) or 1
    return LinearLayer(Layer(node, weight, 0, 1, data, 1), groups, tuple(tensor.shape.numpy()[2:]))


def _matrix_product(node: ir.Node) -> LinearLayer | str:
    data, weight = node.inputs[0], node.inputs[1]
    tensor = constant(weight)
    if data is None or weight is None or tensor is None:
        return (
            "its weight is the first factor"
            if constant(data) is not None
            else "it multiplies two activations"
        )
    if constant(data) is not None or len(tensor.shape) != 2:
        return "it is no product of rows and one matrix"
    if node.attributes.get_int("transA", 0):
        return "it reads its rows transposed"
    outputs, inputs = (0, 1) if node.attributes.get_int("transB", 0) else (1, 0)
    return LinearLayer(Layer(node, weight, outputs, inputs, data, -1), 1, ())


_RULES: Mapping[str, Callable[[ir.Node], LinearLayer | str]] = {
    "Conv": _convolution,
    "Gemm": _matrix_product,
    "MatMul": _matrix_product,
}
