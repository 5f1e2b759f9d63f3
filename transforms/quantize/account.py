"""The account of a quantisation, as steps of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from trimton.transforms.graph.edit import Array
from trimton.transforms.quantize.executed import Executed
from trimton.transforms.quantize.refinement import Refined
from trimton.transforms.quantize.settings import QuantizeSettings
from trimton.transforms.quantize.sites import Placement
from trimton.transforms.quantize.targets import Target
from trimton.transforms.report import Step


def calibration_step(
    settings: QuantizeSettings, target: Target, samples: Mapping[str, Array]
) -> Step:
    """How ranges were chosen, and for whom."""
    count = len(next(iter(samples.values())))
    method = settings.calibration_method
    return Step(
        "calibration",
        f"activation ranges by {method} from {count} samples, for {target.name} kernels",
        detail={"method": method, "target": target.name, "samples": count},
    )


def refined_steps(refined: Sequence[Refined]) -> tuple[Step, ...]:
    """How many layers each method brought closer; the layers one by one in the detail."""
    changed = [layer for layer in refined if layer.method != "unchanged"]
    return tuple(
        Step(
            "refine",
            f"layers brought closer by {method}",
            len(layers),
            {
                "method": method,
                "layers": [
                    {"name": layer.layer, "error_before": layer.before, "error_after": layer.after}
                    for layer in layers
                ],
            },
        )
        for method in dict.fromkeys(layer.method for layer in changed)
        if (layers := [layer for layer in changed if layer.method == method])
    )


def executed_step(executed: Executed) -> Step:
    """Which kernels ran, and what did not fuse although it was placed in integers."""
    unfused = f", {len(executed.unfused)} not fused" if executed.unfused else ""
    return Step(
        "kernels",
        f"kernels ran, {executed.conversions} of them conversions from float or to it{unfused}",
        sum(executed.kernels.values()),
        {"kernels": dict(executed.kernels), "unfused": list(executed.unfused)},
    )


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
