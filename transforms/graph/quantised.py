"""Recognising a model that is already quantised."""

from __future__ import annotations

import onnx_ir as ir

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.graph.tensors import all_nodes

# Operators that quantise, dequantise or compute on quantised values, in any domain.
_PREFIXES = ("QLinear", "DynamicQuantize", "QAttention", "QGemm", "QEmbed", "QOrdered", "QMoE")
_SUFFIXES = ("Integer", "NBits", "IntegerToFloat", "Bnb4")
_NAMES = frozenset({"QuantizeLinear", "DequantizeLinear", "GatherBlockQuantized"})


def is_quantised(node: ir.Node) -> bool:
    """Whether ``node`` works on quantised values or makes them."""
    name = node.op_type
    return name in _NAMES or name.startswith(_PREFIXES) or name.endswith(_SUFFIXES)


def quantised_nodes(model: ir.Model) -> tuple[str, ...]:
    """The nodes of ``model`` that work on quantised values, as ``type (name)``, in graph order.

    Empty for a model in floating point.
    """
    return tuple(f"{node.op_type} ({node.name})" for node in all_nodes(model) if is_quantised(node))


def require_float(model: ir.Model) -> None:
    """Raise UnsupportedModelError, naming the first such node, where ``model`` is quantised."""
    if nodes := quantised_nodes(model):
        raise UnsupportedModelError(
            f"the model is quantised already ({len(nodes)} such nodes, the first is {nodes[0]}); "
            f"give the float model."
        )
