"""Print what each step of quantisation brings: quality of the model, step by step.

    python benchmarks/quantize_ablation.py [--target NAME] [--quick] [NAME...]

Every row is measured in the runtime's fused kernels on this machine, with activation ranges from
the extremes of the calibration samples unless it says otherwise. "noise" is that of the first
output on them, as a share of its variance in float: it tells steps apart that leave every label
as it is. With --unfused every row also tells the quality of the same file with optimisation off,
that is in float arithmetic: what is lost beside it is lost by sums that saturate. --quick leaves
out the rows that refine layer by layer, which take minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from evaluation.catalogue import EVALUATIONS
from evaluation.evaluation import Evaluation, predictor

from trimton.transforms.fuse import fuse
from trimton.transforms.graph.edit import constant_array
from trimton.transforms.graph.load import load_model
from trimton.transforms.quantize.calibration import feeds
from trimton.transforms.quantize.encoding import Encoding
from trimton.transforms.quantize.equalisation import equalise
from trimton.transforms.quantize.integer_forms import to_integer_forms
from trimton.transforms.quantize.prepare import prepare
from trimton.transforms.quantize.quantiser import Quantiser
from trimton.transforms.quantize.refinement import refine
from trimton.transforms.quantize.settings import QuantizeSettings
from trimton.transforms.quantize.smoothquant import smooth
from trimton.transforms.quantize.targets import TARGET_NAMES, target_named
from trimton.transforms.quantize.weights import encode_weight
from trimton.transforms.quantize.write import write

Array = npt.NDArray[Any]
MODELS = ("fashion_resnet", "efficientnet_lite0", "minilm_l3")


class Ablation:
    """One model, quantised for one target with more and more steps."""

    def __init__(self, evaluation: Evaluation, target: str) -> None:
        self._samples = evaluation.samples()
        self._target = target_named(target)
        self._prepared, _ = prepare(fuse(load_model(evaluation.model))[0])
        to_integer_forms(self._prepared)

    def rows(self) -> Iterator[tuple[str, Callable[[], ir.Model]]]:
        """Labels and what makes the models; each on top of what came before."""
        plain = self._prepared
        yield "extremes of weights, 7 bits", lambda: self._by_extremes(64)
        if not self._target.saturates:
            yield "extremes of weights, 8 bits", lambda: self._by_extremes(127)
        yield "scales of least error", lambda: self._made(plain)
        yield "+ biases by mean inputs", lambda: self._made(plain, correct_bias=True)
        for method in ("percentile", "mse"):
            yield f"  the same, ranges by {method}", partial(self._made, plain, True, method)
        equalised, smoothed = plain.clone(), plain.clone()
        if pairs := equalise(equalised):
            label = f"  the same, {len(pairs)} pairs equalised"
            yield label, lambda: self._made(equalised, correct_bias=True)
        if values := smooth(smoothed, feeds(smoothed, self._samples)):
            label = f"  the same, {len(values)} values smoothed"
            yield label, lambda: self._made(smoothed, correct_bias=True)

    def refinements(self) -> Iterator[tuple[str, Callable[[], ir.Model]]]:
        """Labels and what makes the models that are refined layer by layer."""
        plain = self._prepared
        yield "+ biases layer by layer", lambda: self._refined(plain, rounding=False)
        yield "+ compensated rounding", lambda: self._refined(plain, rounding=True)

    def _made(
        self, model: ir.Model, correct_bias: bool = False, method: str = "minmax"
    ) -> ir.Model:
        quantiser = self._quantiser(model, correct_bias, method)
        return quantiser.make(quantiser.place(), refined=False).model

    def _refined(self, model: ir.Model, *, rounding: bool = True) -> ir.Model:
        quantiser = self._quantiser(model)
        placement = quantiser.place()
        made = quantiser.make(placement, refined=False).model
        refine(
            model, made, placement.weights, lambda: feeds(model, self._samples), rounding=rounding
        )
        return made

    def _by_extremes(self, limit: int) -> ir.Model:
        """The largest weight of each channel is ``limit`` steps: 64 can never saturate."""
        quantiser = self._quantiser(self._prepared)
        placement = quantiser.place()
        encodings = quantiser.make(placement, refined=False).encodings
        weights = {}
        for site in placement.weights:
            array = constant_array(self._prepared.graph.initializers[site.value])
            assert array is not None
            if site.is_operand or site.axis is None:
                weights[site.value] = encode_weight(array, site)
                continue
            others = tuple(axis for axis in range(array.ndim) if axis != site.axis)
            scale = np.maximum(np.abs(array).max(axis=others) / limit, 1e-9).astype(np.float32)
            zeros = np.zeros(len(scale), np.int8)
            encoding = Encoding(site.dtype, scale, zeros, site.axis, -limit, limit)
            weights[site.value] = (encoding.quantise(array), encoding)
        copy = self._prepared.clone()
        write(copy, placement, encodings, weights, integer_bias=self._target.integer_bias)
        return copy

    def _quantiser(
        self, model: ir.Model, correct_bias: bool = False, method: str = "minmax"
    ) -> Quantiser:
        settings = QuantizeSettings(calibration_method=method, correct_bias=correct_bias)
        return Quantiser(model, self._samples, self._target, settings)


def noise(evaluation: Evaluation, path: Path) -> float:
    """The error of the first output on the calibration samples, as a share of its variance."""
    exact, made = (_first(predictor(model), evaluation) for model in (evaluation.model, path))
    return float(np.square(made - exact).mean() / exact.var())


def _first(
    predict: Callable[[Mapping[str, Array]], Mapping[str, Array]], given: Evaluation
) -> Array:
    return np.concatenate(
        [next(iter(predict(feed).values())).ravel() for feed in given.calibration]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=MODELS)
    parser.add_argument("--target", choices=TARGET_NAMES, default="avx2")
    parser.add_argument("--unfused", action="store_true")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    unfused = f" {'unfused':>8}" if arguments.unfused else ""
    print(f"{'model':<20} {'step':<30} {'quality':>8} {'noise':>9} {'seconds':>8}{unfused}")
    for name in arguments.names:
        evaluation = EVALUATIONS[name]()
        quality = evaluation.quality(predictor(evaluation.model))
        print(f"{name:<20} {'float: ' + evaluation.metric:<30} {quality:>8.4f}", flush=True)
        ablation = Ablation(evaluation, arguments.target)
        rows = [*ablation.rows(), *([] if arguments.quick else ablation.refinements())]
        for label, make in rows:
            started = time.perf_counter()
            model = make()
            seconds = time.perf_counter() - started
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                ir.save(model, path)
                quality = evaluation.quality(predictor(path))
                row = (
                    f"{name:<20} {label:<30} {quality:>8.4f} {noise(evaluation, path):>9.5f} "
                    f"{seconds:>8.1f}"
                )
                if arguments.unfused:
                    row += f" {evaluation.quality(predictor(path, optimise=False)):>8.4f}"
                print(row, flush=True)


if __name__ == "__main__":
    main()
