"""The rewrite: one layer becomes two, the first of fewer outputs, the second without a kernel.

The node itself becomes the second: it keeps its name, its output and its bias. The first gets
its kernel, strides, padding and dilations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from trimton.transforms.factorise.spectrum import Factors
from trimton.transforms.graph.edit import Array, Editor
from trimton.transforms.linear.layers import LinearLayer

SUFFIX = "_components"
_OF_THE_WINDOW = ("strides", "pads", "dilations", "auto_pad", "kernel_shape")


def first_of(model: ir.Model, layer: LinearLayer) -> ir.Node:
    """The first of the two nodes that stand for ``layer`` in ``model``."""
    return next(node for node in model.graph if node.name == f"{layer.name}{SUFFIX}")


def split(layer: LinearLayer, found: Factors, editor: Editor) -> None:
    """Compute ``layer``, a layer with one group, by ``found``; in place."""
    node, graph = layer.layer.node, layer.layer.node.graph
    if graph is None:
        raise ValueError("the node belongs to no graph")
    first_type, first, second = _SHAPES[node.op_type](layer, found)
    dtype = (layer.layer.weight.dtype or ir.DataType.FLOAT).numpy()
    made = ir.Value(name=editor.fresh_name(f"{layer.output}{SUFFIX}"), type=node.outputs[0].type)
    weight = editor.add_constant(graph, f"{layer.layer.weight.name}{SUFFIX}", first.astype(dtype))
    window = [a for a in node.attributes.values() if a.name in _OF_THE_WINDOW]
    graph.insert_before(
        node,
        ir.Node(
            "",
            first_type,
            [layer.activation, weight],
            window,
            outputs=[made],
            name=f"{layer.name}{SUFFIX}",
        ),
    )
    for attribute in (*_OF_THE_WINDOW, "transB", "alpha"):
        node.attributes.pop(attribute, None)
    node.replace_input_with(0, made)
    editor.set_constant(node, 1, second.astype(dtype), f"{layer.output}_weight")
    layer.add_constant(found.shift, editor)


def _convolutions(layer: LinearLayer, found: Factors) -> tuple[str, Array, Array]:
    """[rank, inputs, kernel...] and [outputs, rank, 1...]."""
    first = found.reduce.T.reshape(found.rank, -1, *layer.kernel)
    return "Conv", first, found.expand.T.reshape(-1, found.rank, *(1 for _ in layer.kernel))


def _products(layer: LinearLayer, found: Factors) -> tuple[str, Array, Array]:
    return "MatMul", found.reduce, found.expand


# Operator -> the type of the first node, and the weights of both.
_SHAPES: Mapping[str, Callable[[LinearLayer, Factors], tuple[str, Array, Array]]] = {
    "Conv": _convolutions,
    "Gemm": _products,
    "MatMul": _products,
}
