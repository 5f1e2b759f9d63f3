"""The account of a quantisation, as steps of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from trimton.transforms.quantize.executed import Executed
from trimton.transforms.quantize.explain import ranges_step
from trimton.transforms.quantize.mixed_precision import mixed_step
from trimton.transforms.quantize.parts import Part, Whole
from trimton.transforms.quantize.range_choice import range_choice_step
from trimton.transforms.quantize.refinement import Refined
from trimton.transforms.quantize.settings import AUTO, QuantizeSettings
from trimton.transforms.quantize.targets import Target
from trimton.transforms.report import Step


def account(
    whole: Whole, target: Target, settings: QuantizeSettings, executed: Executed | None
) -> tuple[Step, ...]:
    """All that was done to the parts of ``whole``, in its order."""
    method = settings.calibration_method
    how = "the best of several methods" if method == AUTO else method
    calibration = Step(
        "calibration",
        f"activation ranges by {how}, for {target.name} kernels",
        detail={"method": method, "target": target.name},
    )
    return (
        *(step for part in whole.parts for step in part.rewrites),
        calibration,
        *(range_choice_step(part.ranges) for part in whole.parts if part.ranges is not None),
        *placement_steps(whole.parts, target),
        ranges_step([row for part in whole.parts for row in part.quantised.tensors]),
        *rounded_steps([name for part in whole.parts for name in part.quantised.rounded]),
        *corrected_steps([name for part in whole.parts for name in part.quantised.corrected]),
        *(mixed_step(part.mixed) for part in whole.parts if part.mixed is not None),
        *refined_steps([layer for part in whole.parts for layer in part.quantised.refined]),
        *([] if executed is None else [executed_step(executed)]),
    )


def rounded_steps(layers: Sequence[str]) -> tuple[Step, ...]:
    """The products whose weights were rounded together, by name in the detail."""
    if not layers:
        return ()
    what = "matrix products whose weights make up for each other's rounding"
    return (Step("compensate", what, len(layers), {"layers": list(layers)}),)


def corrected_steps(layers: Sequence[str]) -> tuple[Step, ...]:
    """The layers whose biases were corrected, by name in the detail."""
    if not layers:
        return ()
    what = "biases take away the mean error of their layer's rounded weights"
    return (Step("correct-bias", what, len(layers), {"layers": list(layers)}),)


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


def placement_steps(parts: Sequence[Part], target: Target) -> tuple[Step, ...]:
    """One step for each operator that computes in integers."""
    done = Counter(
        node.op_type
        for part in parts
        for node in part.prepared.graph
        if node.name in part.quantised.placement.nodes
    )
    return tuple(
        Step("quantise", f"{op_type} {_how(op_type, target)}", count, {"op_type": op_type})
        for op_type, count in sorted(done.items())
    )


def _how(op_type: str, target: Target) -> str:
    if op_type in target.absorbed:
        return "absorbed by the range of the quantised tensor after it"
    return "computed on 8-bit values"
