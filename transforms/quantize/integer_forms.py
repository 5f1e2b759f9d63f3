"""Arithmetic in the forms that have 8-bit kernels: the same numbers, other operators.

HardSwish becomes ``x * clip(x + 3, 0, 6) / 6``, whose parts have kernels or cost nothing; a mean
over all places of a picture becomes GlobalAveragePool; a product of matrices plus a bias becomes
Gemm (the runtime would do so itself, and then not see that both are quantised).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import (
    Array,
    Editor,
    constant_array,
    erase,
    input_at,
    only_consumer,
    replace_value,
)
from trimton.transforms.graph.shapes import known_dims
from trimton.transforms.report import Step

_Rewrite = Callable[[ir.Node, Editor], bool]


def to_integer_forms(model: ir.Model) -> tuple[Step, ...]:
    """Rewrite the main graph of ``model`` in place; one step for each operator that was."""
    editor, done = Editor(model), Counter[str]()
    for node in list(model.graph):
        rewrite = None if node.domain else _REWRITES.get(node.op_type)
        if rewrite is not None and rewrite(node, editor):
            done[node.op_type] += 1
    return tuple(
        Step("rewrite", f"{op_type} brought into a form with 8-bit kernels", count)
        for op_type, count in sorted(done.items())
    )


def _hard_swish(node: ir.Node, editor: Editor) -> bool:
    """HardSwish behind a convolution; elsewhere it is one float operator, and stays one."""
    source = node.inputs[0]
    producer = None if source is None else source.producer()
    if source is None or producer is None or producer.op_type != "Conv":
        return False
    three, zero, six, sixth = (np.float32(n) for n in (3, 0, 6, 1 / 6))
    shifted = _insert(node, editor, "Add", [source, ("three", np.asarray(three))])
    clipped = _insert(
        node, editor, "Clip", [shifted, ("zero", np.asarray(zero)), ("six", np.asarray(six))]
    )
    product = _insert(node, editor, "Mul", [source, clipped])
    _replace(node, editor, "Mul", [product, ("sixth", np.asarray(sixth))])
    return True


def _mean(node: ir.Node, editor: Editor) -> bool:
    """ReduceMean over all axes behind the channels."""
    dims = known_dims(node.inputs[0])
    given = constant_array(input_at(node, 1))
    axes = node.attributes.get_ints("axes", None) if given is None else given.reshape(-1).tolist()
    if dims is None or len(dims) < 4 or axes is None:
        return False
    if sorted(axis % len(dims) for axis in axes) != list(range(2, len(dims))):
        return False
    if node.attributes.get_int("keepdims", 1):
        _replace(node, editor, "GlobalAveragePool", [node.inputs[0]])
        return True
    pooled = _insert(node, editor, "GlobalAveragePool", [node.inputs[0]])
    spatial = np.arange(2, len(dims), dtype=np.int64)
    pooled.shape = ir.Shape([*dims[:2], *[1] * len(spatial)])
    _replace(node, editor, "Squeeze", [pooled, ("spatial", spatial)])
    return True


def _biased_product(node: ir.Node, editor: Editor) -> bool:
    """``x @ w + b`` for a matrix x and constants w and b."""
    for product, bias in (tuple(node.inputs), tuple(node.inputs)[::-1]):
        producer = None if product is None else product.producer()
        values = constant_array(bias)
        if product is None or producer is None or values is None or producer.domain:
            continue
        if producer.op_type != "MatMul" or only_consumer(product) is not node:
            continue
        ranks = [len(known_dims(value) or ()) for value in producer.inputs]
        weight = constant_array(producer.inputs[1])
        if ranks != [2, 2] or weight is None or values.shape != (weight.shape[1],):
            continue
        _replace(node, editor, "Gemm", [*producer.inputs, bias])
        erase(producer)
        return True
    return False


_Operand = ir.Value | tuple[str, Array] | None


def _insert(node: ir.Node, editor: Editor, op_type: str, operands: list[_Operand]) -> ir.Value:
    """The output of a new node before ``node``, of the type and shape that ``node`` makes."""
    graph = node.graph
    if graph is None:
        raise ValueError("the node belongs to no graph")
    inputs = [
        editor.add_constant(graph, operand[0], operand[1])
        if isinstance(operand, tuple)
        else operand
        for operand in operands
    ]
    old = node.outputs[0]
    output = ir.Value(
        name=editor.fresh_name(f"{old.name}_{op_type}"), type=old.type, shape=old.shape
    )
    name = editor.fresh_name(f"{node.name}_{op_type}")
    graph.insert_before(node, ir.Node("", op_type, inputs, outputs=[output], name=name))
    return output


def _replace(node: ir.Node, editor: Editor, op_type: str, operands: list[_Operand]) -> None:
    """A new node in the place of ``node``, with its name."""
    old = node.outputs[0]
    new = _insert(node, editor, op_type, operands)
    name, value_name = node.name, old.name
    replace_value(old, new)
    erase(node)
    new.name = value_name
    producer = new.producer()
    if producer is not None:
        producer.name = name


_REWRITES: Mapping[str, _Rewrite] = {
    "Add": _biased_product,
    "HardSwish": _hard_swish,
    "ReduceMean": _mean,
}
