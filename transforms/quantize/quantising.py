"""Static int8 quantisation in the QDQ form, for the kernels of one target.

Source: Jacob et al. 2018, arXiv:1712.05877; ONNX operators QuantizeLinear, DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from trimton.core.errors import TransformError, UnsupportedModelError
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.inputs import interface
from trimton.transforms.graph.load import one_line
from trimton.transforms.graph.probe import OutputDifference, Probe, compare_outputs, given_probes
from trimton.transforms.graph.quantised import quantised_nodes
from trimton.transforms.graph.session import ORT_ERRORS, Array
from trimton.transforms.quantize.account import (
    calibration_step,
    executed_step,
    placement_steps,
    refined_steps,
)
from trimton.transforms.quantize.calibration import feeds
from trimton.transforms.quantize.equalisation import equalise
from trimton.transforms.quantize.executed import executed_kernels
from trimton.transforms.quantize.integer_forms import to_integer_forms
from trimton.transforms.quantize.prepare import prepare
from trimton.transforms.quantize.quantiser import Quantiser
from trimton.transforms.quantize.settings import QuantizeSettings
from trimton.transforms.quantize.sites import Placement
from trimton.transforms.quantize.smoothquant import smooth
from trimton.transforms.quantize.targets import Target, target_named
from trimton.transforms.report import TransformReport


def quantize(
    model: ir.Model, samples: Mapping[str, Array], settings: QuantizeSettings | None = None
) -> tuple[ir.Model, TransformReport]:
    """Quantise a copy of ``model`` with ranges from ``samples`` (by input, axis 0 = samples).

    ``max_relative_difference`` of the report is taken on the samples, with the operators as
    ONNX defines them. Raises UnsupportedModelError for a model that is quantised already, has
    nothing to quantise for the target or cannot be run; InputError for samples that do not fit;
    TransformError if the result is no valid model with the same interface.
    """
    chosen = settings or QuantizeSettings()
    target = target_named(chosen.target)
    _require_float(model)
    if target.refusal is not None:
        raise UnsupportedModelError(f"{target.refusal}.")
    probes = given_probes(model, samples)
    prepared, steps = prepare(model)
    steps += to_integer_forms(prepared)
    if chosen.equalise:
        steps += equalise(prepared)
    if chosen.smooth:
        steps += smooth(prepared, feeds(prepared, samples))
    quantiser = Quantiser(prepared, samples, target, chosen)
    placement = quantiser.place()
    _require_weights(placement, target)
    made = quantiser.make(placement)
    differences = _compare(model, made.model, probes)
    ran = (executed_kernels(made.model, placement, probes[0].inputs),) if target.fuses_here else ()
    report = TransformReport(
        transform="quantize",
        changed=True,
        before=model_cost(model),
        after=model_cost(made.model),
        max_relative_difference=differences[0].relative if differences else None,
        steps=(
            *steps,
            calibration_step(chosen, target, samples),
            *placement_steps(prepared, placement, target),
            *refined_steps(made.refined),
            *map(executed_step, ran),
        ),
        skipped=placement.skipped,
    )
    return made.model, report


def _require_float(model: ir.Model) -> None:
    if present := quantised_nodes(model):
        raise UnsupportedModelError(
            f"the model is quantised already ({len(present)} such nodes, the first is "
            f"{present[0]}); give the float model."
        )


def _require_weights(placement: Placement, target: Target) -> None:
    if placement.weights:
        return
    reasons = "; ".join(f"{s.what}: {s.why}" for s in placement.skipped[:3])
    raise UnsupportedModelError(
        "nothing to quantise: no node of the main graph has weights and an 8-bit kernel for "
        f"target {target.name} ({reasons})."
    )


def _compare(
    model: ir.Model, quantised: ir.Model, probes: tuple[Probe, ...]
) -> tuple[OutputDifference, ...]:
    if interface(quantised) != interface(model):
        raise TransformError("the quantised model has other inputs or outputs than the original.")
    try:
        return compare_outputs(quantised, probes)
    except ORT_ERRORS as error:
        raise TransformError(
            f"the quantised model cannot be run: {one_line(str(error))}."
        ) from error
