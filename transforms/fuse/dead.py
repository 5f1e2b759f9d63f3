"""Dead code: nodes whose outputs nothing reads, weights that no node reads."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

from trimton.transforms.fuse.family import Family, Outcome
from trimton.transforms.graph.edit import Editor
from trimton.transforms.graph.tensors import all_nodes


def _remove(editor: Editor) -> Outcome:
    model = editor.model
    before = _size(model)
    RemoveUnusedNodesPass()(model)
    _remove_unused_initializers(model)
    RemoveUnusedOpsetsPass()(model)
    return Outcome(before - _size(model))


def _remove_unused_initializers(model: ir.Model) -> None:
    """The library's pass leaves those of subgraphs."""
    for graph in model.graphs():
        for name, value in list(graph.initializers.items()):
            is_interface = value.is_graph_input() or value.is_graph_output()
            if not value.uses() and not is_interface:
                del graph.initializers[name]


def _size(model: ir.Model) -> int:
    return sum(1 for _ in all_nodes(model)) + sum(len(g.initializers) for g in model.graphs())


DEAD_CODE = Family("dead-code", "removed nodes and weights that nothing reads", _remove)
