"""Weights in few bits: rounded to nearest, reconstructed, and trained through their rounding.

    python benchmarks/distill_quantised.py [--by METHOD ...] [--bits B ...] [--samples N] [NAME ...]

fashion_resnet (accuracy on the test images) and EfficientNet-Lite0 (the share of photographs that
get the class that the float model gives them). Each is fused and quantised as `trimton quantize`
does, activations in 8 bits; then weights get, for each output channel, the step of least squared
error in ``--bits`` bits (they stay in 8-bit storage, so that the same kernels run). From there
``--by`` goes on, without labels: "layer" and "block" are `trimton reconstruct`, "trained" is
`trimton distill` with the same scales. fashion_resnet learns from ``--samples`` of the training
images where Debian's dataset-fashion-mnist is installed, else, as EfficientNet-Lite0, from the
calibration samples. What is regained is the share of what rounding to nearest loses; exit code 1
where no method that ran regains 90 % in 4 bits.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
from evaluation.catalogue import EVALUATIONS
from evaluation.evaluation import Evaluation, predictor

from trimton.perf.hardware import describe
from trimton.plugin.samples import DataNotInstalledError, load_samples
from trimton.transforms.distill.distilling import distill
from trimton.transforms.distill.reconstruct.float_form import float_forms
from trimton.transforms.distill.reconstruct.layers import array_of, output_axis, quantised_layers
from trimton.transforms.distill.reconstruct.reconstructing import reconstruct
from trimton.transforms.distill.reconstruct.settings import ReconstructSettings
from trimton.transforms.distill.settings import DistillSettings
from trimton.transforms.fuse import fuse
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.inputs import input_specs
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.save import save_model
from trimton.transforms.quantize import QuantizeSettings, quantize
from trimton.transforms.quantize.targets import target_of_processor

# The steps of each unit, as many as some minutes allow.
STEPS = {"fashion_resnet": 500, "efficientnet_lite0": 60}
METHODS = ("layer", "block", "trained")
LEAST_REGAINED = 0.9

Weights = Mapping[str, Array]


def coarser(model: ir.Model, floats: Mapping[str, Array], bits: int) -> ir.Model:
    """``model`` with its ``floats``, by layer, in so many bits, and biases in their steps."""
    result, top = model.clone(), 2 ** (bits - 1) - 1
    nodes = {node.name: node for node in result.graph}
    for layer in quantised_layers(result)[0]:
        steps, scale = least_error(floats[layer.node], output_axis(nodes[layer.node]), top)
        old = array_of(result, layer.scale)
        changes = {layer.integers: steps.astype(np.int8), layer.scale: scale.reshape(old.shape)}
        if layer.bias is not None and layer.bias.scale is not None:
            bias = array_of(result, layer.bias.stored) * array_of(result, layer.bias.scale)
            sums = array_of(result, layer.activation or "") * changes[layer.scale]
            changes[layer.bias.stored] = np.rint(bias / sums).astype(np.int32)
            changes[layer.bias.scale] = sums
        for name, array in changes.items():
            result.graph.initializers[name].const_value = ir.tensor(array, name=name)
    return result


def least_error(weight: Array, outputs: int, top: int) -> tuple[Array, Array]:
    """Integers up to ``top`` and the best float32 scale for each index of the axis ``outputs``."""
    others = tuple(axis for axis in range(weight.ndim) if axis != outputs)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    scales = np.geomspace(0.4, 1.0, 40).reshape(-1, *[1] * weight.ndim) * largest / top
    # A channel of zeros still has a bias, which must fit into int32.
    scales = np.maximum(scales, 1e-3 * largest.max() / top).astype(np.float32)
    errors = [
        np.square(np.clip(np.rint(weight / s), -top, top) * s - weight).sum(axis=others)
        for s in scales
    ]
    best = np.argmin(errors, axis=0)
    chosen = np.take_along_axis(scales, best.reshape(1, *largest.shape), axis=0)[0]
    return np.clip(np.rint(weight / chosen), -top, top), chosen


def float_weights(quantised: ir.Model, original: ir.Model, samples: Mapping[str, Array]) -> Weights:
    """The float weights of the layers of ``quantised``, which was made of ``original``, fused."""
    feeds = [{name: array[i : i + 1] for name, array in samples.items()} for i in range(8)]
    return next(iter(float_forms(quantised, fuse(original)[0], feeds))).weights


def quality(evaluation: Evaluation, model: ir.Model) -> float:
    with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
        file = Path(folder) / "model.onnx"
        save_model(model, file)
        return evaluation.quality(predictor(file))


def training(evaluation: Evaluation, model: ir.Model, count: int) -> dict[str, Array]:
    """What ``evaluation.model`` teaches on."""
    if evaluation.name != "fashion_resnet":
        return evaluation.samples()
    source = f"{evaluation.model.parents[1]}/training_set.py:images"
    try:
        return dict(load_samples(source, input_specs(model)).first(count).inputs)
    except DataNotInstalledError:
        return evaluation.samples()


Method = Callable[[ir.Model, ir.Model, Mapping[str, Array]], ir.Model]


def methods(name: str, options: argparse.Namespace) -> dict[str, Method]:
    """By name how a model whose weights were rounded to nearest comes closer to the float one."""
    settings = DistillSettings(
        epochs=options.epochs,
        batch=32,
        learning_rate=options.learning_rate,
        averaging=0.98,
        threads=options.threads,
        seed=1,
    )

    def trained(original: ir.Model, nearest: ir.Model, lessons: Mapping[str, Array]) -> ir.Model:
        with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
            return distill(original, nearest, lessons, settings, Path(folder))[0]

    def tuned(unit: str) -> Method:
        steps = options.steps or STEPS[name]
        kept = ReconstructSettings(unit=unit, steps=steps, threads=options.threads)
        return lambda original, nearest, lessons: reconstruct(original, nearest, lessons, kept)[0]

    return {"layer": tuned("layer"), "block": tuned("block"), "trained": trained}


def regained(name: str, options: argparse.Namespace) -> dict[int, float]:
    """Print the rows of one model; gives the most that was regained, by bits."""
    evaluation = EVALUATIONS[name]()
    original = load_model(evaluation.model)
    samples = evaluation.samples()
    lessons = training(evaluation, original, options.samples)
    in_float = quality(evaluation, original)
    target = target_of_processor(describe().instruction_sets).name
    in_8_bits, _ = quantize(fuse(original)[0], samples, QuantizeSettings(target=target))
    weights = float_weights(in_8_bits, original, samples)
    print(f"{name:<20} {'':>4} {'float':<8} {in_float:>9.2%}")
    print(f"{'':<20} {8:>4} {'nearest':<8} {quality(evaluation, in_8_bits):>9.2%}", flush=True)
    most: dict[int, float] = {}
    for bits in options.bits:
        rounded = coarser(in_8_bits, weights, bits)
        nearest = quality(evaluation, rounded)
        print(f"{'':<20} {bits:>4} {'nearest':<8} {nearest:>9.2%}", flush=True)
        for method in options.by:
            start = time.monotonic()
            made = methods(name, options)[method](original, rounded, lessons)
            seconds, reached = time.monotonic() - start, quality(evaluation, made)
            share = (reached - nearest) / max(in_float - nearest, 1e-9)
            most[bits] = max(share, most.get(bits, share))
            row = f"{method:<8} {reached:>9.2%} {share:>9.0%} {seconds:>6.0f}"
            print(f"{'':<20} {bits:>4} {row}", flush=True)
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--by", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--bits", type=int, nargs="*", default=[4])
    parser.add_argument("--samples", type=int, default=6144)
    parser.add_argument("--steps", type=int, help="of each unit, instead of the model's own")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    print(f"{'':<20} {'bits':>4} {'by':<8} {'quality':>9} {'regained':>9} {'s':>6}")
    found = {name: regained(name, options) for name in options.names or STEPS}
    missed = [n for n, shares in found.items() if shares.get(4, 1.0) < LEAST_REGAINED]
    if missed:
        sys.exit(f"less than {LEAST_REGAINED:.0%} regained in 4 bits: {', '.join(missed)}")


if __name__ == "__main__":
    main()
