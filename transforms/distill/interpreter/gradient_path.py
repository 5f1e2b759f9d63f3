"""What stands between weights and outputs must have a gradient; else it is named."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import onnx_ir as ir

from trimton.transforms.distill.interpreter.operators import OPERATORS
from trimton.transforms.distill.interpreter.runtime_node import no_gradient
from trimton.transforms.distill.interpreter.weights import Weight
from trimton.transforms.graph.shapes import infer_shapes
from trimton.transforms.graph.tensors import all_nodes, subgraphs_of


def require_gradients(model: ir.Model, nodes: Sequence[ir.Node], weights: Iterable[Weight]) -> None:
    """Raise UnsupportedModelError for the first of ``nodes`` that stops the gradients of weights.

    ``nodes`` are those that outputs depend on, in order. What is no floating point (an index, a
    comparison) ends a path: it has no gradient.
    """
    depends: set[ir.Value] = {weight.value for weight in weights if weight.learns}
    _follow(nodes, depends, _without_gradient(model))


def _follow(
    nodes: Iterable[ir.Node], depends: set[ir.Value], discrete: Collection[ir.Value]
) -> None:
    for node in nodes:
        for body in subgraphs_of(node):
            depends.update(_given_to_body(node, body, depends))
            _follow(body, depends, discrete)
        reached = any(value in depends for value in node.inputs) or any(
            value in depends for body in subgraphs_of(node) for value in body.outputs
        )
        if not reached:
            continue
        outputs = [value for value in node.outputs if value not in discrete]
        if outputs and not subgraphs_of(node) and (_domain(node), node.op_type) not in OPERATORS:
            raise no_gradient(node)
        depends.update(outputs)


def _given_to_body(node: ir.Node, body: ir.Graph, depends: set[ir.Value]) -> Sequence[ir.Value]:
    """All inputs of a loop's body where one of the loop's own depends on weights."""
    return body.inputs if any(value in depends for value in node.inputs) else ()


def _without_gradient(model: ir.Model) -> frozenset[ir.Value]:
    """The values of ``model`` that are known to be no floating point; it is left as it is."""
    inferred = model.clone()
    infer_shapes(inferred)
    return frozenset(
        value
        for node, known in zip(all_nodes(model), all_nodes(inferred), strict=True)
        for value, other in zip(node.outputs, known.outputs, strict=True)
        if other.dtype is not None and not other.dtype.is_floating_point()
    )


def _domain(node: ir.Node) -> str:
    return "" if node.domain == "ai.onnx" else node.domain
