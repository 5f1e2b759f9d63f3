"""Making a variant: the transforms of a recipe, applied in order to the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.plugin.steps import AnyStep
from trimton.plugin.steps.step import TransformContext
from trimton.transforms.graph.quantised import quantised_nodes
from trimton.transforms.report import TransformReport


def apply_steps(
    model: ir.Model, steps: Sequence[AnyStep], context: TransformContext, where: str
) -> tuple[ir.Model, list[TransformReport]]:
    """Apply ``steps`` in order; ``where`` names the variant in errors.

    ``context.original`` is ``model`` unless it says otherwise.

    Raises InputError for a step that changes nothing (the recipe asked for it) and whatever a
    transform raises.
    """
    reports = []
    context = replace(context, original=context.original or model)
    for step in steps:
        if not quantised_nodes(model):
            context = replace(context, unquantised=model)
        try:
            model, report = step.apply(model, context)
        except InputError as error:
            raise type(error)(f"{where}: {step.step}: {error}") from error
        if not report.changed:
            raise InputError(
                f"{where}: {step.step} changes nothing in this model; take the step out."
            )
        reports.append(report)
    return model, reports
