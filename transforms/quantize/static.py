"""Static int8 quantisation in the QDQ form; ONNX Runtime's quantiser does the arithmetic.

Weights become int8 with one symmetric scale for each output channel (or tensor), activations
uint8 with a scale and zero point chosen from calibration samples:
``q = clip(round(x / scale) + zero_point, 0, 255)``. Only operators for which ONNX Runtime's CPU
provider has 8-bit kernels are quantised (see placement); the report names every other one.

CPUs without 8-bit dot products (AVX2, and AVX-512 without VNNI) add two u8*s8 products in 16
bits, which saturates: 2 * 255 * 127 > 32767. For them weights are kept within 7 bits, as
2 * 255 * 63 < 32767.

Source: Jacob et al. 2018, arXiv:1712.05877; ONNX operators QuantizeLinear, DequantizeLinear.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnxruntime import quantization
from onnxruntime.quantization.preprocess import quant_pre_process

from trimton.core.errors import InputError, TransformError, UnsupportedModelError
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.inputs import InputSpec, input_specs, interface
from trimton.transforms.graph.load import load_model, one_line
from trimton.transforms.graph.probe import compare_outputs, given_probes
from trimton.transforms.graph.quantised import quantised_nodes
from trimton.transforms.graph.session import ORT_ERRORS, Array
from trimton.transforms.quantize.opset import raise_opset
from trimton.transforms.quantize.placement import KERNELS, MOVES, placement_report
from trimton.transforms.quantize.settings import QuantizeSettings
from trimton.transforms.report import Step, TransformReport

_METHODS = {
    "minmax": quantization.CalibrationMethod.MinMax,
    "percentile": quantization.CalibrationMethod.Percentile,
    "entropy": quantization.CalibrationMethod.Entropy,
}


def quantize(
    model: ir.Model, samples: Mapping[str, Array], settings: QuantizeSettings | None = None
) -> tuple[ir.Model, TransformReport]:
    """Quantise a copy of ``model`` with ranges from ``samples`` (by input, axis 0 = samples).

    ``max_relative_difference`` of the report is taken on the samples, with the operators as
    ONNX defines them. Raises UnsupportedModelError for a model that is quantised already, has
    nothing to quantise, or that ONNX Runtime's quantiser cannot take; InputError for samples
    that do not fit; TransformError if the result is no valid model with the same interface.
    """
    chosen = settings or QuantizeSettings()
    if present := quantised_nodes(model):
        raise UnsupportedModelError(
            f"the model is quantised already ({len(present)} such nodes, the first is "
            f"{present[0]}); give the float model."
        )
    if not any(node.op_type in KERNELS and not node.domain for node in model.graph):
        raise UnsupportedModelError(
            "nothing to quantise: the main graph has no operator with an 8-bit kernel "
            f"({', '.join(KERNELS)})."
        )
    probes = given_probes(model, samples)
    prepared, steps = raise_opset(model)
    quantised = _quantise(prepared, samples, chosen)
    if interface(quantised) != interface(model):
        raise TransformError("the quantised model has other inputs or outputs than the original.")
    try:
        differences = compare_outputs(quantised, probes)
    except ORT_ERRORS as error:
        raise TransformError(
            f"the quantised model cannot be run: {one_line(str(error))}."
        ) from error
    done, skipped = placement_report(model, quantised, chosen.exclude)
    if not done:
        raise UnsupportedModelError("nothing was quantised; see which nodes are excluded.")
    calibration = Step(
        "calibration",
        f"activation ranges by {chosen.calibration_method} from {_count(samples)} samples, "
        f"{'8' if chosen.target == 'vnni' else '7'}-bit weights for {chosen.target} kernels",
        detail={
            "method": chosen.calibration_method,
            "target": chosen.target,
            "samples": _count(samples),
        },
    )
    report = TransformReport(
        transform="quantize",
        changed=True,
        before=model_cost(model),
        after=model_cost(quantised),
        max_relative_difference=differences[0].relative if differences else None,
        steps=(*steps, calibration, *done),
        skipped=skipped,
    )
    return quantised, report


def _quantise(
    model: ir.Model, samples: Mapping[str, Array], settings: QuantizeSettings
) -> ir.Model:
    with tempfile.TemporaryDirectory(prefix="trimton-") as name, _quiet():
        folder = Path(name)
        source, prepared, result = (folder / f"{n}.onnx" for n in ("source", "prepared", "int8"))
        ir.save(model, source, external_data="source.data")
        try:
            # Shapes only: fusing is the business of the fuse transform.
            quant_pre_process(source, prepared, skip_optimization=True, skip_symbolic_shape=True)
            quantization.quantize_static(
                prepared,
                result,
                _Reader(samples, input_specs(model), settings.batch),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=[*KERNELS, *MOVES],
                per_channel=settings.per_channel,
                reduce_range=settings.target == "avx2",
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=_excluded(model, settings.exclude),
                calibrate_method=_METHODS[settings.calibration_method],
                extra_options={
                    # One batch at a time, its ranges merged: memory does not grow with samples.
                    "CalibStridedMinMax": 1,
                    "CalibPercentile": settings.percentile,
                    "CalibTensorRangeSymmetric": False,
                },
            )
        except ORT_ERRORS as error:
            raise InputError(f"the samples cannot be run: {one_line(str(error))}.") from error
        except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UnsupportedModelError(
                f"ONNX Runtime's quantiser cannot take this model: {one_line(str(error))}."
            ) from error
        quantised = load_model(result)
        _drop_quantiser_marks(quantised)
        return _in_memory(quantised)


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # it has no type hints
    """Feeds the quantiser one batch after the other; ``len`` counts batches.

    A last, smaller batch is fed too: no sample is dropped.
    """

    def __init__(
        self, samples: Mapping[str, Array], specs: tuple[InputSpec, ...], batch: int
    ) -> None:
        self._samples = {s.name: samples[s.name] for s in specs if s.name in samples}
        fixed = {s.shape[0] for s in specs if s.name in samples and s.shape}
        self._batch = next((n for n in fixed if n is not None), batch)
        count = _count(samples)
        self._starts = range(
            0, count - count % self._batch if None not in fixed else count, self._batch
        )
        self._range = iter(self._starts)

    def __len__(self) -> int:
        return len(self._starts)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._range = iter(self._starts[start_index:end_index])

    def get_next(self) -> dict[str, Array] | None:
        start = next(self._range, None)
        if start is None:
            return None
        stop = start + self._batch
        return {name: np.ascontiguousarray(a[start:stop]) for name, a in self._samples.items()}


def _excluded(model: ir.Model, patterns: tuple[str, ...]) -> list[str]:
    names = [node.name or "" for node in model.graph]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"no node is named {pattern!r}; take it out of the exclusions.")
    return [name for name in names if any(fnmatchcase(name, p) for p in patterns)]


def _count(samples: Mapping[str, Array]) -> int:
    return len(next(iter(samples.values())))


def _drop_quantiser_marks(model: ir.Model) -> None:
    for key in [k for k in model.metadata_props if k.startswith("onnx.")]:
        del model.metadata_props[key]


def _in_memory(model: ir.Model) -> ir.Model:
    """``model`` without ties to files that are about to go."""
    return ir.serde.deserialize_model(ir.serde.serialize_model(model))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser logs through the root logger and prints; our report says what matters."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
