"""Chains of Reshape and of Transpose: one node does what two did.

Transpose: ``y.shape[i] = x.shape[p[i]]``, so p after q is ``[q[p[0]], q[p[1]], ...]``.
Reshape: the elements keep their order, so only the last shape matters, unless it copies (0) a
dimension of its own input. Flatten, Squeeze and Unsqueeze before a Reshape are such reshapes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from trimton.transforms.fuse.family import Family, Match, at_nodes
from trimton.transforms.graph.edit import Editor, constant_array, erase, input_at
from trimton.transforms.graph.shapes import known_dims

_KEEP_ORDER = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})


def _join_transposes(node: ir.Node, editor: Editor) -> Match:
    source = input_at(node, 0)
    first = _producer(source, frozenset({"Transpose"}))
    if first is None or source is None:
        return False
    outer, inner = _permutation(node), _permutation(first)
    rank = len(outer or inner or known_dims(source) or ())
    if not rank:
        return "how many axes it turns around is not known"
    outer = outer or list(reversed(range(rank)))
    inner = inner or list(reversed(range(rank)))
    node.attributes["perm"] = ir.AttrInt64s("perm", [inner[axis] for axis in outer])
    _bypass(node, source, first)
    return True


def _join_reshapes(node: ir.Node, editor: Editor) -> Match:
    source = input_at(node, 0)
    first = _producer(source, _KEEP_ORDER)
    if first is None or source is None:
        return False
    target = constant_array(input_at(node, 1))
    if target is None:
        return f"its shape is not constant, so the {first.op_type} before it stays"
    sizes = [int(size) for size in target.reshape(-1)]
    if 0 in sizes:
        if node.attributes.get_int("allowzero", 0):
            return f"it makes an empty tensor, so the {first.op_type} before it stays"
        resolved = _resolve_copies(sizes, source)
        if resolved is None:
            return f"it copies a free dimension that the {first.op_type} before it makes"
        editor.set_constant(node, 1, np.array(resolved, dtype=np.int64), hint="shape")
    _bypass(node, source, first)
    return True


def _resolve_copies(sizes: list[int], source: ir.Value) -> list[int] | None:
    """``sizes`` with each 0 replaced by the dimension it copies; one free dimension may be -1."""
    dims = known_dims(source)
    if dims is None:
        return None
    resolved: list[int] = []
    for axis, size in enumerate(sizes):
        dim = dims[axis] if size == 0 else size
        if dim is None and (-1 in sizes or -1 in resolved):
            return None
        resolved.append(-1 if dim is None else dim)
    return resolved


def _permutation(node: ir.Node) -> list[int] | None:
    perm = node.attributes.get_ints("perm", None)
    return None if perm is None else list(perm)


def _producer(value: ir.Value | None, op_types: frozenset[str]) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in op_types and not node.domain else None


def _bypass(node: ir.Node, source: ir.Value, first: ir.Node) -> None:
    """Let ``node`` read what ``first`` reads, and remove ``first`` if nothing else needs it."""
    node.replace_input_with(0, first.inputs[0])
    if not source.uses() and not source.is_graph_output():
        erase(first)


TRANSPOSES = Family(
    "transposes",
    "joined chains of Transpose",
    at_nodes("Transpose", rule=_join_transposes),
)
RESHAPES = Family(
    "reshapes",
    "joined chains of Reshape, Flatten, Squeeze and Unsqueeze",
    at_nodes("Reshape", rule=_join_reshapes),
)
