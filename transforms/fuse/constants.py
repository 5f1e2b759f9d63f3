"""Constant folding: a node whose output is the same in every run becomes that output."""

from __future__ import annotations

from trimton.transforms.fuse.family import Family, Outcome, at_nodes
from trimton.transforms.graph.edit import Editor
from trimton.transforms.graph.fold import fold_node
from trimton.transforms.graph.normalise import normalise

_fold_everywhere = at_nodes(rule=fold_node)


def _fold(editor: Editor) -> Outcome:
    """Constants first become initializers: inlining a branch may bring new ones."""
    normalise(editor.model, keep_default_inputs=True)
    return _fold_everywhere(editor)


CONSTANTS = Family("constant-folding", "computed once what is the same in every run", _fold)
