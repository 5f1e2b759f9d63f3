"""Dead code: nodes whose outputs nothing reads, weights that no node reads."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedOpsetsPass

from trimton.transforms.fuse.family import Family, Outcome
from trimton.transforms.graph.edit import Editor
from trimton.transforms.graph.tensors import all_nodes
from trimton.transforms.graph.unread import remove_unread


def _remove(editor: Editor) -> Outcome:
    model = editor.model
    before = _size(model)
    remove_unread(model)
    RemoveUnusedOpsetsPass()(model)
    return Outcome(before - _size(model))


def _size(model: ir.Model) -> int:
    return sum(1 for _ in all_nodes(model)) + sum(len(g.initializers) for g in model.graphs())


DEAD_CODE = Family("dead-code", "removed nodes and weights that nothing reads", _remove)
