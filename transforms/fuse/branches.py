"""An If whose condition is constant becomes the branch that is always taken."""

from __future__ import annotations

import onnx_ir as ir

from trimton.transforms.fuse.family import Family, Match, at_nodes
from trimton.transforms.graph.edit import (
    Editor,
    can_replace,
    constant_array,
    erase,
    input_at,
    replace_value,
)


def _inline(node: ir.Node, editor: Editor) -> Match:
    condition = constant_array(input_at(node, 0))
    graph = node.graph
    if condition is None or graph is None:
        return False
    name = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
    branch = node.attributes[name].as_graph()
    if any(output.graph is not branch or output.producer() is None for output in branch.outputs):
        return f"its {name} passes a value through, without a node that could be moved"
    if any(output.is_graph_output() for output in node.outputs) and len(set(branch.outputs)) != len(
        branch.outputs
    ):
        return f"its {name} gives one value twice"
    _rename_ambiguous(branch, editor)
    results = list(branch.outputs)
    branch.outputs.clear()
    _move(branch, node)
    for output, result in zip(node.outputs, results, strict=True):
        if not can_replace(output, result):
            raise AssertionError("a value that was just moved here can be an output")
        replace_value(output, result)
    erase(node)
    return True


def _rename_ambiguous(branch: ir.Graph, editor: Editor) -> None:
    """Branches of different Ifs may share names; in one graph they must differ."""
    values = [*branch.initializers.values(), *(v for node in branch for v in node.outputs)]
    for value in values:
        if value.name and editor.is_ambiguous(value.name):
            value.name = editor.fresh_name(value.name)


def _move(branch: ir.Graph, node: ir.Node) -> None:
    """Move all of ``branch`` into the graph of ``node``, before it."""
    target = node.graph
    if target is None:
        raise ValueError("the node belongs to no graph")
    for name in list(branch.initializers):
        value = branch.initializers.pop(name)
        target.register_initializer(value)
    nodes = list(branch)
    branch.remove(nodes)
    target.insert_before(node, nodes)


BRANCHES = Family(
    "branches", "replaced an If by the branch it always takes", at_nodes("If", rule=_inline)
)
