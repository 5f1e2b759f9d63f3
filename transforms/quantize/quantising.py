"""Static int8 quantisation in the QDQ form, for the kernels of one target.

Source: Jacob et al. 2018, arXiv:1712.05877; ONNX operators QuantizeLinear, DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from trimton.core.errors import TransformError, UnsupportedModelError
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.edit import constant_array
from trimton.transforms.graph.inputs import input_specs, interface
from trimton.transforms.graph.load import one_line
from trimton.transforms.graph.probe import compare_outputs, given_probes
from trimton.transforms.graph.quantised import quantised_nodes
from trimton.transforms.graph.session import ORT_ERRORS, Array
from trimton.transforms.prune.refit.taps import Taps
from trimton.transforms.quantize.account import placement_steps
from trimton.transforms.quantize.encoding import Encoding
from trimton.transforms.quantize.placement import place
from trimton.transforms.quantize.prepare import prepare
from trimton.transforms.quantize.settings import QuantizeSettings
from trimton.transforms.quantize.sites import Placement
from trimton.transforms.quantize.targets import Target, target_named
from trimton.transforms.quantize.write import minmax_encoding, smallest_weight_scale, write
from trimton.transforms.report import Step, TransformReport


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
    if present := quantised_nodes(model):
        raise UnsupportedModelError(
            f"the model is quantised already ({len(present)} such nodes, the first is "
            f"{present[0]}); give the float model."
        )
    if target.refusal is not None:
        raise UnsupportedModelError(f"{target.refusal}.")
    probes = given_probes(model, samples)
    prepared, steps = prepare(model)
    placement = place(prepared, target, chosen.exclude)
    if not chosen.per_channel:
        placement = _per_tensor(placement)
    if not placement.weights:
        raise UnsupportedModelError(
            "nothing to quantise: no node of the main graph has weights and an 8-bit kernel for "
            f"target {target.name} ({_reasons(placement)})."
        )
    done = placement_steps(prepared, placement, target)
    encodings = _encodings(prepared, placement, samples, chosen)
    weights = _weights(prepared, placement, encodings)
    write(prepared, placement, encodings, weights, integer_bias=target.integer_bias)
    prepared.metadata_props["trimton.quantize.target"] = target.name
    if interface(prepared) != interface(model):
        raise TransformError("the quantised model has other inputs or outputs than the original.")
    try:
        differences = compare_outputs(prepared, probes)
    except ORT_ERRORS as error:
        raise TransformError(
            f"the quantised model cannot be run: {one_line(str(error))}."
        ) from error
    report = TransformReport(
        transform="quantize",
        changed=True,
        before=model_cost(model),
        after=model_cost(prepared),
        max_relative_difference=differences[0].relative if differences else None,
        steps=(*steps, _calibration_step(chosen, target, samples), *done),
        skipped=placement.skipped,
    )
    return prepared, report


def _per_tensor(placement: Placement) -> Placement:
    weights = tuple(replace(site, axis=None) for site in placement.weights)
    return replace(placement, weights=weights)


def _encodings(
    model: ir.Model,
    placement: Placement,
    samples: Mapping[str, Array],
    settings: QuantizeSettings,
) -> dict[str, Encoding]:
    names = [name for site in placement.activations for name in site.measured]
    taps = Taps(model, names)
    extremes: dict[str, tuple[float, float]] = {}
    for feed in _feeds(model, samples, settings.batch):
        for name, value in taps(feed).items():
            low, high = extremes.get(name, (0.0, 0.0))
            extremes[name] = (min(low, float(value.min())), max(high, float(value.max())))
    found: dict[str, Encoding] = {}
    for site in placement.activations:
        low = min(extremes[name][0] for name in site.measured)
        high = max(extremes[name][1] for name in site.measured)
        encoding = minmax_encoding(low, high, site.dtype, site.symmetric)
        found.update(dict.fromkeys(site.values, encoding))
    return found


def _weights(
    model: ir.Model, placement: Placement, encodings: Mapping[str, Encoding]
) -> dict[str, tuple[Array, Encoding]]:
    found: dict[str, tuple[Array, Encoding]] = {}
    for site in placement.weights:
        value = model.graph.initializers[site.value]
        array = constant_array(value)
        if array is None:
            raise ValueError(f"{site.value} is no constant")
        if site.dtype != ir.DataType.INT8:
            encoding = minmax_encoding(float(array.min()), float(array.max()), site.dtype, False)
        else:
            others = tuple(a for a in range(array.ndim) if a != site.axis)
            top = np.abs(array).max(axis=others if site.axis is not None else None)
            limit = 127 if site.kernel is None else 64
            scale = np.where(top > 0, top / limit, 1.0)
            bias = (
                None if site.bias is None else constant_array(model.graph.initializers[site.bias])
            )
            if bias is not None and site.activation is not None:
                smallest = smallest_weight_scale(bias, encodings[site.activation])
                scale = np.maximum(scale, smallest if site.axis is not None else smallest.max())
            scale = np.asarray(scale, np.float32)
            encoding = Encoding(
                site.dtype, scale, np.zeros(scale.shape, np.int8), site.axis, -limit, limit
            )
        found[site.value] = (encoding.quantise(array), encoding)
    return found


def _feeds(
    model: ir.Model, samples: Mapping[str, Array], batch: int
) -> Iterator[Mapping[str, Array]]:
    specs = [spec for spec in input_specs(model) if spec.name in samples]
    fixed = next((s.shape[0] for s in specs if s.shape and s.shape[0] is not None), None)
    size = fixed or batch
    count = min(len(samples[spec.name]) for spec in specs)
    for start in range(0, count if fixed is None else count - count % size, size):
        yield {
            spec.name: np.ascontiguousarray(samples[spec.name][start : start + size])
            for spec in specs
        }


def _calibration_step(
    settings: QuantizeSettings, target: Target, samples: Mapping[str, Array]
) -> Step:
    count = len(next(iter(samples.values())))
    return Step(
        "calibration",
        f"activation ranges by {settings.calibration_method} from {count} samples, "
        f"for {target.name} kernels",
        detail={"method": settings.calibration_method, "target": target.name, "samples": count},
    )


def _reasons(placement: Placement) -> str:
    return "; ".join(dict.fromkeys(f"{s.what}: {s.why}" for s in placement.skipped[:3]))
