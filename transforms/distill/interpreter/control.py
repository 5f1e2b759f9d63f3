"""If, Loop and Scan: their bodies are programs of their own, or part of the plan.

A condition that is known when planning leaves one branch, which is planned as if it stood in the
place of the node. Any other is decided in each run; gradients follow the branch that was taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir
from torch import Tensor

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.distill.interpreter.node import Kernel

if TYPE_CHECKING:
    from trimton.transforms.distill.interpreter.program import Trace


def inline(node: ir.Node, trace: Trace) -> bool:
    """Plan the branch of an If whose condition is known in its place; False where it is not."""
    condition = node.inputs[0] if node.op_type == "If" else None
    if condition is None or not trace.is_known(condition):
        return False
    branch = _branches(node)[not bool(trace.value(condition))]
    trace.walk(branch)
    for output, value in zip(node.outputs, branch.outputs, strict=True):
        trace.alias(output, value)
    return True


def kernel_of(node: ir.Node, trace: Trace) -> tuple[Kernel, Sequence[ir.Value | None]]:
    """The function of a node with bodies, and the values that it is to be called with."""
    raise UnsupportedModelError(
        f"{node.op_type} (node {node.name!r}) cannot be followed by gradients."
    )


def _branches(node: ir.Node) -> tuple[ir.Graph, ir.Graph]:
    return (
        node.attributes["then_branch"].as_graph(),
        node.attributes["else_branch"].as_graph(),
    )
