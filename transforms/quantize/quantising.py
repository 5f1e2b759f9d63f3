"""Static int8 quantisation in the QDQ form, for the kernels of one target.

Source: Jacob et al. 2018, arXiv:1712.05877; ONNX operators QuantizeLinear, DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import onnx_ir as ir

from trimton.core.errors import InputError, TransformError, UnsupportedModelError
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.inputs import interface
from trimton.transforms.graph.load import one_line
from trimton.transforms.graph.probe import (
    OutputDifference,
    Probe,
    compare_outputs,
    given_probes,
    request_probes,
)
from trimton.transforms.graph.quantised import quantised_nodes
from trimton.transforms.graph.session import ORT_ERRORS
from trimton.transforms.graph.tensors import all_nodes
from trimton.transforms.quantize.account import account
from trimton.transforms.quantize.executed import executed_kernels
from trimton.transforms.quantize.norm_sums import keep_norm_sums
from trimton.transforms.quantize.parts import Whole, quantise_parts
from trimton.transforms.quantize.prepare import prepare
from trimton.transforms.quantize.quantiser import Samples
from trimton.transforms.quantize.settings import QuantizeSettings
from trimton.transforms.quantize.targets import Target, target_named
from trimton.transforms.report import TransformReport


def quantize(
    model: ir.Model, samples: Samples, settings: QuantizeSettings | None = None
) -> tuple[ir.Model, TransformReport]:
    """Quantise a copy of ``model`` with ranges from ``samples``.

    These are arrays by input, axis 0 = samples, or requests as the model takes them (a list of
    mappings), where an input has no such axis.

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
    probes = _probes(model, samples)
    prepared, steps = prepare(model)
    _require_names(prepared, chosen.exclude)
    whole = quantise_parts(prepared, samples, target, chosen)
    _require_weights(whole, target)
    if target.sums_norms:
        steps += keep_norm_sums(whole.model)
    differences = _compare(model, whole.model, probes)
    placements = [part.quantised.placement for part in whole.parts]
    nodes = {name for placement in placements for name in placement.nodes}
    ran = executed_kernels(whole.model, nodes, probes[0].inputs) if target.fuses_here else None
    report = TransformReport(
        transform="quantize",
        changed=True,
        before=model_cost(model),
        after=model_cost(whole.model),
        max_relative_difference=differences[0].relative if differences else None,
        steps=(*steps, *account(whole, target, chosen, ran)),
        skipped=(
            *(s for part in whole.parts for s in part.quantised.placement.skipped),
            *whole.skipped,
        ),
    )
    return whole.model, report


def _probes(model: ir.Model, samples: Samples) -> tuple[Probe, ...]:
    if isinstance(samples, Mapping):
        return given_probes(model, samples)
    return request_probes(model, samples)


def _require_names(model: ir.Model, patterns: tuple[str, ...]) -> None:
    names = [node.name or "" for node in all_nodes(model)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"no node is named {pattern!r}; take it out of the exclusions.")


def _require_float(model: ir.Model) -> None:
    if present := quantised_nodes(model):
        raise UnsupportedModelError(
            f"the model is quantised already ({len(present)} such nodes, the first is "
            f"{present[0]}); give the float model."
        )


def _require_weights(whole: Whole, target: Target) -> None:
    placements = [part.quantised.placement for part in whole.parts]
    if any(placement.weights for placement in placements):
        return
    left = [*(s for placement in placements for s in placement.skipped), *whole.skipped]
    reasons = "; ".join(f"{skipped.what}: {skipped.why}" for skipped in left[:3])
    raise UnsupportedModelError(
        "nothing to quantise: no node has weights and an 8-bit kernel for "
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
