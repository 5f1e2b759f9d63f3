"""Making a variant: the transforms of a recipe, applied in order to the baseline."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, cast

import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.plugin.recipe import (
    AnyStep,
    CastStep,
    DistillStep,
    FactoriseStep,
    FuseStep,
    PruneStep,
    QuantizeDynamicStep,
    QuantizeStep,
    QuantizeWeightsStep,
    SparsifyStep,
)
from trimton.plugin.samples import Samples, import_function, resolve_source
from trimton.transforms.factorise import factorise
from trimton.transforms.fuse import fuse
from trimton.transforms.precision import CastSettings
from trimton.transforms.precision import cast as cast_precision
from trimton.transforms.prune import prune
from trimton.transforms.quantize import QuantizeSettings, quantize
from trimton.transforms.quantize.dynamic import DynamicSettings, quantize_dynamic
from trimton.transforms.quantize.targets import target_of_processor
from trimton.transforms.quantize.weight_only import WeightOnlySettings, quantize_weights
from trimton.transforms.report import TransformReport
from trimton.transforms.sparsify import sparsify

if TYPE_CHECKING:
    from trimton.transforms.distill.augment import Augmentation

AUTO = "auto"


@dataclass(frozen=True)
class TransformContext:
    """What transforms may use besides the model.

    ``instruction_sets`` are those of this machine's CPU (see trimton.perf.hardware); they decide
    what ``target: auto`` means. ``training`` are the samples to train on, with ``seed``;
    ``recipe_folder`` is what files in steps are relative to, ``work_folder`` where a training
    keeps its state, and ``on_progress`` hears of its steps (done, all). ``original`` is the model
    before the first step.
    """

    calibration: Samples | None
    instruction_sets: tuple[str, ...]
    training: Samples | None = None
    seed: int = 0
    recipe_folder: Path = Path()
    work_folder: Path = Path()
    on_progress: Callable[[int, int], None] = lambda done, steps: None
    original: ir.Model | None = None


Transformed = tuple[ir.Model, TransformReport]


def apply_steps(
    model: ir.Model, steps: Sequence[AnyStep], context: TransformContext, where: str
) -> tuple[ir.Model, list[TransformReport]]:
    """Apply ``steps`` in order; ``where`` names the variant in errors.

    Raises InputError for a step that changes nothing (the recipe asked for it) and whatever a
    transform raises.
    """
    reports = []
    context = replace(context, original=model)
    for step in steps:
        try:
            model, report = apply_step(step, model, context)
        except InputError as error:
            raise type(error)(f"{where}: {step.step}: {error}") from error
        if not report.changed:
            raise InputError(
                f"{where}: {step.step} changes nothing in this model; take the step out."
            )
        reports.append(report)
    return model, reports


@singledispatch
def apply_step(step: AnyStep, model: ir.Model, context: TransformContext) -> Transformed:
    """Apply one step; each kind registers its function here."""
    raise TypeError(f"no transform is registered for {type(step)}")


@apply_step.register
def _(step: FuseStep, model: ir.Model, context: TransformContext) -> Transformed:
    probes = None if context.calibration is None else context.calibration.first(8).inputs
    return fuse(model, probes=probes)


@apply_step.register
def _(step: PruneStep, model: ir.Model, context: TransformContext) -> Transformed:
    samples = None if context.calibration is None else context.calibration.inputs
    return prune(model, step.settings(), samples)


@apply_step.register
def _(step: FactoriseStep, model: ir.Model, context: TransformContext) -> Transformed:
    assert context.calibration is not None  # a recipe with this step is refused without it
    return factorise(model, context.calibration.inputs, step.settings())


@apply_step.register
def _(step: SparsifyStep, model: ir.Model, context: TransformContext) -> Transformed:
    samples = None if context.calibration is None else context.calibration.inputs
    return sparsify(model, step.settings(), samples)


@apply_step.register
def _(step: DistillStep, model: ir.Model, context: TransformContext) -> Transformed:
    from trimton.transforms.distill.runtime import require_torch

    require_torch()
    from trimton.transforms.distill.distilling import Listeners, distill

    samples = context.training or context.calibration
    assert samples is not None  # a recipe with this step is refused without it
    assert context.original is not None
    if step.labels and samples.labels is None:
        raise InputError(
            f"{samples.source}: has no labels; add an integer array 'labels', or go without."
        )
    augmentation = None
    if step.augment is not None:
        source = resolve_source(step.augment, context.recipe_folder)
        augmentation = cast("Augmentation", import_function(source))
    return distill(
        context.original,
        model,
        samples.inputs,
        step.settings(context.seed),
        context.work_folder,
        labels=samples.labels if step.labels else None,
        augmentation=augmentation,
        listeners=Listeners(training=lambda now: context.on_progress(now.done, now.steps)),
    )


@apply_step.register
def _(step: QuantizeStep, model: ir.Model, context: TransformContext) -> Transformed:
    assert context.calibration is not None  # a recipe with this step is refused without it
    options = step.model_dump(exclude={"step", "target", "exclude"})
    settings = QuantizeSettings(
        **options,
        target=resolve_target(step.target, context.instruction_sets),
        exclude=tuple(step.exclude),
    )
    return quantize(model, context.calibration.inputs, settings)


@apply_step.register
def _(step: QuantizeWeightsStep, model: ir.Model, context: TransformContext) -> Transformed:
    options = step.model_dump(exclude={"step", "exclude"})
    settings = WeightOnlySettings(**options, exclude=tuple(step.exclude))
    samples = None if context.calibration is None else context.calibration.inputs
    return quantize_weights(model, settings, samples)


@apply_step.register
def _(step: QuantizeDynamicStep, model: ir.Model, context: TransformContext) -> Transformed:
    settings = DynamicSettings(
        target=resolve_target(step.target, context.instruction_sets),
        per_channel=step.per_channel,
        tables=step.tables,
        exclude=tuple(step.exclude),
    )
    samples = None if context.calibration is None else context.calibration.inputs
    return quantize_dynamic(model, settings, samples)


@apply_step.register
def _(step: CastStep, model: ir.Model, context: TransformContext) -> Transformed:
    settings = CastSettings(to=step.to, target=step.target, exclude=tuple(step.exclude))
    samples = None if context.calibration is None else context.calibration.inputs
    return cast_precision(model, settings, samples)


def resolve_target(name: str, instruction_sets: Collection[str]) -> str:
    """The target that ``name`` means on a machine with these instruction sets."""
    return target_of_processor(instruction_sets).name if name == AUTO else name
