"""One form for every model: weights are initializers, functions are inlined.

Models in the wild list weights as inputs (IR version 3), keep them in Constant nodes, or hide
nodes in model-local functions. ONNX Runtime treats all of these alike, and so does Trimton: it
brings them into one form at loading, and no transform has to know the others.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import (
    InlinePass,
    LiftConstantsToInitializersPass,
    RemoveInitializersFromInputsPass,
)

from trimton.transforms.graph.tensors import all_nodes

# The first IR version in which a weight need not be an input too.
_IR_VERSION_WITH_PLAIN_INITIALIZERS = 4


def normalise(model: ir.Model, *, keep_default_inputs: bool = False) -> ir.Model:
    """Bring ``model`` into the one form, in place, and return it.

    ``keep_default_inputs`` keeps inputs that have a default value (weights listed as inputs).
    By default they become plain weights: neither Triton nor ONNX Runtime counts them as inputs.
    """
    if model.functions:
        InlinePass()(model)
    _free_negative_dimensions(model)
    if not any(_has_sparse_constant(node) for node in all_nodes(model)):
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    if not keep_default_inputs:
        RemoveInitializersFromInputsPass()(model)
        model.ir_version = max(model.ir_version, _IR_VERSION_WITH_PLAIN_INITIALIZERS)
    return model


def _has_sparse_constant(node: ir.Node) -> bool:
    return node.op_type == "Constant" and "sparse_value" in node.attributes


def _free_negative_dimensions(model: ir.Model) -> None:
    """Some exporters write -1 for a free dimension; ONNX has no negative sizes."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None and any(isinstance(d, int) and d < 0 for d in value.shape):
            value.shape = ir.Shape(
                None if isinstance(dim, int) and dim < 0 else dim for dim in value.shape
            )
