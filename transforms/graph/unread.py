"""Removing what nothing reads: nodes, and weights of all graphs."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass


def remove_unread(model: ir.Model) -> None:
    """Remove nodes whose outputs nothing reads and weights that no node reads, in place."""
    RemoveUnusedNodesPass()(model)
    for graph in model.graphs():  # the library's pass leaves the weights of subgraphs
        for name, value in list(graph.initializers.items()):
            is_interface = value.is_graph_input() or value.is_graph_output()
            if not value.uses() and not is_interface:
                del graph.initializers[name]
