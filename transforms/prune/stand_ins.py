"""Standard operators whose outputs have the shape of contributed ones, which ONNX cannot infer.

Only for inferring shapes: what a stand-in would compute is of no interest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Editor
from trimton.transforms.graph.shapes import static_shape

_CONTRIBUTED = "com.microsoft"

# Gives the operator, the inputs and the attributes of the stand-in; None where there is none.
_StandIn = tuple[str, list[ir.Value | None], Mapping[str, ir.Attr]]
_Rule = Callable[[ir.Node, Editor], _StandIn | None]


def use_stand_ins(model: ir.Model) -> None:
    """Put stand-ins for contributed operators into ``model``, in place."""
    editor = Editor(model)
    for node in list(model.graph):
        rule = _RULES.get(node.op_type) if node.domain == _CONTRIBUTED else None
        found = None if rule is None else rule(node, editor)
        if found is None or any(output.uses() for output in node.outputs[1:3]):
            continue
        op_type, inputs, attributes = found
        output = ir.Value(name=node.outputs[0].name, type=node.outputs[0].type)
        twin = ir.Node("", op_type, inputs, list(attributes.values()), outputs=[output])
        model.graph.insert_before(node, twin)
        node.outputs[0].replace_all_uses_with(output, replace_graph_outputs=True)
        for extra in node.outputs[3:]:  # SkipLayerNormalization also gives the sum
            if extra.uses():
                extra.replace_all_uses_with(output, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)


def _like_first_input(node: ir.Node, editor: Editor) -> _StandIn:
    return "Identity", [node.inputs[0]], {}


def _convolution(node: ir.Node, editor: Editor) -> _StandIn:
    kept = {
        name: value
        for name, value in node.attributes.items()
        if name in ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    }
    return "Conv", list(node.inputs[:3]), kept


def _gemm(node: ir.Node, editor: Editor) -> _StandIn:
    kept = {name: a for name, a in node.attributes.items() if name in ("transA", "transB")}
    return "Gemm", list(node.inputs[:2]), kept


def _matmul(node: ir.Node, editor: Editor) -> _StandIn | None:
    is_plain = not any(
        node.attributes.get_int(name, 0)
        for name in ("transA", "transB", "transBatchA", "transBatchB")
    )
    return ("MatMul", list(node.inputs[:2]), {}) if is_plain else None


def _attention(node: ir.Node, editor: Editor) -> _StandIn | None:
    shape, graph = static_shape(node.inputs[1]), node.graph
    if shape is None or graph is None or "qkv_hidden_sizes" in node.attributes:
        return None
    weight = np.zeros((shape[0], shape[1] // 3), np.float32)
    return "MatMul", [node.inputs[0], editor.add_constant(graph, "stand_in", weight)], {}


_RULES: Mapping[str, _Rule] = {
    "Attention": _attention,
    "BiasGelu": _like_first_input,
    "FastGelu": _like_first_input,
    "FusedConv": _convolution,
    "FusedGemm": _gemm,
    "FusedMatMul": _matmul,
    "Gelu": _like_first_input,
    "MultiHeadAttention": _like_first_input,
    "QuickGelu": _like_first_input,
    "SkipLayerNormalization": _like_first_input,
    "SkipSimplifiedLayerNormalization": _like_first_input,
}
