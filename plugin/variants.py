"""Making a variant: the transforms of a recipe, applied in order to the baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.plugin.recipe import FuseStep, QuantizeStep
from trimton.plugin.samples import Samples
from trimton.transforms.fuse import fuse
from trimton.transforms.quantize import QuantizeSettings, quantize
from trimton.transforms.quantize.settings import Target
from trimton.transforms.report import TransformReport


@dataclass(frozen=True)
class TransformContext:
    """What transforms may use besides the model.

    ``int8_dot_product`` says whether this machine's CPU multiplies 8-bit values without
    saturation; it decides what ``target: auto`` means.
    """

    calibration: Samples | None
    int8_dot_product: bool


Transformed = tuple[ir.Model, TransformReport]


def apply_steps(
    model: ir.Model, steps: list[FuseStep | QuantizeStep], context: TransformContext, where: str
) -> tuple[ir.Model, list[TransformReport]]:
    """Apply ``steps`` in order; ``where`` names the variant in errors.

    Raises InputError for a step that changes nothing (the recipe asked for it) and whatever a
    transform raises.
    """
    reports = []
    for step in steps:
        try:
            model, report = _APPLY[step.step](model, step, context)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{where}: {step.step}: {error}") from error
        if not report.changed:
            raise InputError(
                f"{where}: {step.step} changes nothing in this model; take the step out."
            )
        reports.append(report)
    return model, reports


def _fuse(model: ir.Model, step: FuseStep | QuantizeStep, context: TransformContext) -> Transformed:
    probes = None if context.calibration is None else context.calibration.first(8).inputs
    return fuse(model, probes=probes)


def _quantize(
    model: ir.Model, step: FuseStep | QuantizeStep, context: TransformContext
) -> Transformed:
    assert isinstance(step, QuantizeStep)
    assert context.calibration is not None  # a recipe with this step is refused without it
    settings = QuantizeSettings(
        calibration_method=step.calibration_method,
        percentile=step.percentile,
        per_channel=step.per_channel,
        target=resolve_target(step.target, context.int8_dot_product),
        exclude=tuple(step.exclude),
    )
    return quantize(model, context.calibration.inputs, settings)


def resolve_target(target: Literal["auto", "avx2", "vnni"], int8_dot_product: bool) -> Target:
    """The kernels that ``auto`` means on this machine."""
    if target != "auto":
        return target
    return "vnni" if int8_dot_product else "avx2"


_APPLY: dict[str, Callable[[ir.Model, FuseStep | QuantizeStep, TransformContext], Transformed]] = {
    "fuse": _fuse,
    "quantize": _quantize,
}
