"""What a family of fusions is: a name, and a function that applies it to a whole model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from trimton.transforms.graph.edit import Editor
from trimton.transforms.graph.tensors import all_nodes
from trimton.transforms.report import Skipped

# What a rule says of one node: True = rewritten, False = not its pattern, and a text where the
# pattern is there but the rewrite would not be exact: the reason, which the report shows.
Match = bool | str
Rule = Callable[[ir.Node, Editor], Match]


@dataclass(frozen=True)
class Outcome:
    """What one application of a family did: ``count`` rewrites, and near misses with reasons."""

    count: int
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class Family:
    """A family of fusions: ``what`` says in words what it does, for the report."""

    name: str
    what: str
    apply: Callable[[Editor], Outcome]


def at_nodes(*op_types: str, rule: Rule) -> Callable[[Editor], Outcome]:
    """Apply ``rule`` to every node of these standard operators, subgraphs included.

    Without ``op_types`` the rule sees every node.
    """

    def apply(editor: Editor) -> Outcome:
        count = 0
        skipped: list[Skipped] = []
        for node in list(all_nodes(editor.model)):
            is_wanted = not op_types or (node.op_type in op_types and not node.domain)
            if node.graph is None or not is_wanted:
                continue
            match = rule(node, editor)
            if isinstance(match, str):
                skipped.append(Skipped(f"{node.op_type} ({node.name})", match))
            else:
                count += match
        return Outcome(count, tuple(skipped))

    return apply
