"""``A B + C`` in two dimensions is one Gemm.

Exact where A and B have rank 2 and C broadcasts to the product without enlarging it. Above rank
2 the two nodes stay: reshaping around a Gemm would cost what it saves.
"""

from __future__ import annotations

import onnx_ir as ir

from trimton.transforms.fuse.family import Family, Match, at_nodes
from trimton.transforms.graph.edit import Editor, erase, input_at, only_consumer, replace_value
from trimton.transforms.graph.shapes import known_dims

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16})


def _fuse(node: ir.Node, editor: Editor) -> Match:
    for index in (0, 1):
        product, bias = input_at(node, index), input_at(node, 1 - index)
        matmul = None if product is None else product.producer()
        if matmul is None or matmul.op_type != "MatMul" or matmul.domain:
            continue
        if product is None or bias is None or product.dtype not in _FLOATS:
            return False
        left, right = (known_dims(value) for value in matmul.inputs)
        if left is None or right is None or len(left) != 2 or len(right) != 2:
            return False
        if only_consumer(product) is not node:
            return "the product before it is used elsewhere too"
        if reason := _cannot_be_bias(bias, columns=right[1]):
            return reason
        gemm = ir.Node("", "Gemm", [*matmul.inputs, bias], name=matmul.name)
        result, output = gemm.outputs[0], node.outputs[0]
        if node.graph is None:
            return False
        result.name = editor.fresh_name(f"{output.name}_gemm")
        result.type, result.shape = output.type, output.shape
        node.graph.insert_before(node, gemm)
        replace_value(output, result)
        erase(node)
        erase(matmul)
        return True
    return False


def _cannot_be_bias(bias: ir.Value, columns: int | None) -> str | None:
    dims = known_dims(bias)
    if dims is None:
        return "the shape of what is added is not known"
    is_row = len(dims) <= 2 and all(dim == 1 for dim in dims[:-1])
    if not is_row or (dims and dims[-1] not in (1, columns)):
        return "what is added is no row of the product's width"
    return None if not dims or dims[-1] is not None else "the width of what is added is not known"


GEMM = Family("gemm", "joined MatMul and Add into Gemm", at_nodes("Add", rule=_fuse))
