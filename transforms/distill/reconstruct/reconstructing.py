"""``reconstruct``: tune the integers and scales of a quantised model, unit by unit.

Source: Nagel et al. 2020, "AdaRound", arXiv:2004.10568; Li et al. 2021, "BRECQ", arXiv:2102.05426.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.distill.interface import check_models, check_samples
from trimton.transforms.distill.reconstruct.account import account, left_alone
from trimton.transforms.distill.reconstruct.float_form import FloatForm, float_forms
from trimton.transforms.distill.reconstruct.layers import quantised_layers
from trimton.transforms.distill.reconstruct.network import Network, Progress
from trimton.transforms.distill.reconstruct.settings import ReconstructSettings
from trimton.transforms.distill.reconstruct.tuning import relative_error
from trimton.transforms.distill.reconstruct.units import find_units
from trimton.transforms.distill.runtime import repeatable, threads_or_cores
from trimton.transforms.distill.split import split
from trimton.transforms.distill.teacher import Answers, fixed_batch
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.difference import relative_difference
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.normalise import normalise
from trimton.transforms.graph.quantised import quantised_nodes, require_float
from trimton.transforms.graph.shapes import infer_shapes, restored_declarations
from trimton.transforms.report import TransformReport

# Samples that tell by which powers of two channels were scaled, and how many of them at once.
_PROBED, _PROBED_AT_ONCE = 16, 2
# A float form is right if its outputs have less than this of the squared error of the quantised
# model, or so little that it comes of the order of sums.
_REST, _ORDER_OF_SUMS = 0.05, 1e-6


def reconstruct(
    original: ir.Model,
    quantised: ir.Model,
    samples: Mapping[str, Array],
    settings: ReconstructSettings | None = None,
    on_progress: Progress = lambda done, units: None,
) -> tuple[ir.Model, TransformReport]:
    """``quantised`` with integers and scales that bring it closer to ``original``.

    ``original`` is the float model that it was made of, fused or not; ``samples`` are arrays by
    input name, first axis = samples. The graph stays as it is. From the input to the output each
    unit is changed only where its held-out error falls; the result is ``quantised`` itself where
    in the end the outputs come no closer.

    Raises InputError where models or samples do not fit, UnsupportedModelError where there is
    nothing to tune.
    """
    chosen = settings or ReconstructSettings()
    _check_models(original, quantised)
    result = normalise(quantised.clone())
    work = result.clone()
    with restored_declarations(work):
        infer_shapes(work)
    layers, skipped = quantised_layers(work)
    if not layers:
        reasons = "; ".join(dict.fromkeys(s.why for s in skipped)) or "it has no such layer"
        raise UnsupportedModelError(
            f"no layer has integer weights that could be rounded another way ({reasons})."
        )
    threads = threads_or_cores(chosen.threads)
    ordered, tuned = _ordered(samples, chosen, fixed_batch(work) or 1)
    judge = _Judge.of(original, {name: a[tuned:] for name, a in ordered.items()}, threads)
    before, old = judge.error(work)
    form = _right_form(work, original, judge, before, ordered)
    units = find_units(work, layers, chosen.unit)
    with repeatable(threads), tempfile.TemporaryDirectory(prefix="trimton-") as folder:
        network = Network(work, form, ordered, tuned, chosen, threads, Path(folder))
        made, failed = network.tune(units, on_progress)
    after, new = judge.error(work)
    is_better = after < before
    if is_better:
        for name, value in result.graph.initializers.items():
            value.const_value = work.graph.initializers[name].const_value
    return result, TransformReport(
        transform="reconstruct",
        changed=is_better,
        before=model_cost(quantised),
        after=model_cost(result),
        max_relative_difference=relative_difference(dict(old), dict(new if is_better else old)),
        steps=account(made, before, after, len(judge)),
        skipped=(*skipped, *failed, *left_alone(made, before, after)),
    )


@dataclass(frozen=True)
class _Judge:
    """Compares models with the float one by its ``goals`` for held-out samples, ``inputs``."""

    inputs: Mapping[str, Array]
    goals: Mapping[str, Array]
    threads: int

    @classmethod
    def of(cls, original: ir.Model, inputs: Mapping[str, Array], threads: int) -> _Judge:
        """By the outputs of ``original`` that are of floating point."""
        names = [
            value.name or ""
            for value in original.graph.outputs
            if isinstance(value.type, ir.TensorType) and value.type.dtype.is_floating_point()
        ]
        return cls(inputs, Answers(original, names, threads=threads)(inputs), threads)

    def error(self, model: ir.Model) -> tuple[float, Mapping[str, Array]]:
        """The squared error as a share of the variance, the mean over outputs; the outputs."""
        made = Answers(model, self.goals, threads=self.threads)(self.inputs)
        return relative_error(made, self.goals), made

    def __len__(self) -> int:
        return len(next(iter(self.goals.values())))


def _check_models(original: ir.Model, quantised: ir.Model) -> None:
    require_float(original)
    if not quantised_nodes(quantised):
        raise InputError(
            "the model to tune is not quantised; give the float model first, then what "
            "trimton quantize made of it."
        )
    check_models(original, quantised)


def _ordered(
    samples: Mapping[str, Array], settings: ReconstructSettings, multiple: int
) -> tuple[dict[str, Array], int]:
    """``samples`` with those to tune on first, and how many these are."""
    count = check_samples(samples, None, multiple)
    parts = split(count, settings.held_out, settings.seed, multiple=multiple)
    order = np.concatenate([parts.training, parts.held_out])
    return {name: array[order] for name, array in samples.items()}, len(parts.training)


def _right_form(
    quantised: ir.Model,
    original: ir.Model,
    judge: _Judge,
    error: float,
    samples: Mapping[str, Array],
) -> FloatForm:
    """The float form whose outputs are those of ``original``; InputError where none is."""
    at_once = fixed_batch(quantised) or _PROBED_AT_ONCE
    count = min(_PROBED, len(next(iter(samples.values()))))
    feeds = [
        {name: array[start : start + at_once] for name, array in samples.items()}
        for start in range(0, max(count - at_once, 0) + 1, at_once)
    ]
    for form in float_forms(quantised, original, feeds):
        if judge.error(form.model)[0] <= max(_REST * error, _ORDER_OF_SUMS):
            return form
    raise InputError(
        "the quantised model, its rounding aside, does not compute what the float model does; give "
        "the model that it was quantised from."
    )
