"""Nodes chosen by patterns of their names."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.transforms.graph.tensors import all_nodes


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether ``name`` fits one of ``patterns`` (``*``, ``?``)."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def require_names(model: ir.Model, patterns: Iterable[str]) -> None:
    """Raise InputError for a pattern of exclusion that no node of ``model`` has the name for."""
    names = [node.name or "" for node in all_nodes(model)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"exclusion {pattern!r}: no node has this name; take it out.")
