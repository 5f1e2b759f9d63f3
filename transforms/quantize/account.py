"""The account of a placement: how many nodes of each operator compute in integers."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from trimton.transforms.quantize.sites import Placement
from trimton.transforms.quantize.targets import Target
from trimton.transforms.report import Step


def placement_steps(model: ir.Model, placement: Placement, target: Target) -> tuple[Step, ...]:
    """One step for each operator of ``placement``, which was made of ``model``."""
    done = Counter(node.op_type for node in model.graph if node.name in placement.nodes)
    return tuple(
        Step("quantise", f"{op_type} {_how(op_type, target)}", count, {"op_type": op_type})
        for op_type, count in sorted(done.items())
    )


def _how(op_type: str, target: Target) -> str:
    if op_type in target.absorbed:
        return "absorbed by the range of the quantised tensor after it"
    return "computed on 8-bit values"
