"""Weights in few bits: rounded to nearest, and trained through their rounding.

    python benchmarks/distill_quantised.py [--epochs N] [--samples N] [--bits B ...] [NAME ...]

fashion_resnet (accuracy on the test images) and EfficientNet-Lite0 (the share of photographs that
get the class that the float model gives them). Each is fused and quantised as `trimton quantize`
does, activations in 8 bits; then the steps of the weights, one for each output channel, are made
coarser until the largest weight takes the highest of ``--bits`` bits (they stay in 8-bit storage,
so that the same kernels run). The float model then teaches it with the same scales, without labels:
fashion_resnet on ``--samples`` of the training images where Debian's dataset-fashion-mnist is
installed, else, as EfficientNet-Lite0, on the calibration samples. What is regained is the share of
what rounding to nearest loses; exit code 1 if it is less than 90 % in 4 bits.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
from evaluation.catalogue import EVALUATIONS
from evaluation.evaluation import Evaluation, predictor

from trimton.perf.hardware import describe
from trimton.plugin.samples import DataNotInstalledError, load_samples
from trimton.transforms.distill.distilling import distill
from trimton.transforms.distill.settings import DistillSettings
from trimton.transforms.fuse import fuse
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.inputs import input_specs
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.save import save_model
from trimton.transforms.quantize import QuantizeSettings, quantize
from trimton.transforms.quantize.targets import target_of_processor

NAMES = ("fashion_resnet", "efficientnet_lite0")
BITS = (4, 3)
LEAST_REGAINED = 0.9


def coarser(model: ir.Model, factor: float) -> ir.Model:
    """``model`` with steps of weights, and of biases, which follow, ``factor`` times as large."""
    result = model.clone()
    for node in result.graph:
        value = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        scale = None if value is None else node.inputs[1]
        if value is None or scale is None or not value.is_initializer():
            continue
        steps, size = value.const_value, scale.const_value
        assert steps is not None
        assert size is not None
        fewer = np.round(steps.numpy() / factor).astype(steps.numpy().dtype)
        value.const_value = ir.tensor(fewer, name=value.name)
        scale.const_value = ir.tensor(size.numpy() * np.float32(factor), name=scale.name)
    return result


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


def regained(name: str, bits: list[int], count: int, settings: DistillSettings) -> dict[int, float]:
    """Print the rows of one model; gives what was regained, by bits."""
    evaluation = EVALUATIONS[name]()
    original = load_model(evaluation.model)
    samples = evaluation.samples()
    lessons = training(evaluation, original, count)
    in_float = quality(evaluation, original)
    target = target_of_processor(describe().instruction_sets).name
    in_8_bits, _ = quantize(fuse(original)[0], samples, QuantizeSettings(target=target))
    print(f"{name:<20} {'float':>7} {in_float:>9.2%}")
    print(f"{'':<20} {'8 bits':>7} {quality(evaluation, in_8_bits):>9.2%}", flush=True)
    shares: dict[int, float] = {}
    for width in bits:
        student = coarser(in_8_bits, 127 / (2 ** (width - 1) - 1))
        nearest = quality(evaluation, student)
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
            trained, _ = distill(original, student, lessons, settings, Path(folder))
        seconds, reached = time.monotonic() - start, quality(evaluation, trained)
        shares[width] = (reached - nearest) / max(in_float - nearest, 1e-9)
        print(
            f"{'':<20} {f'{width} bits':>7} {nearest:>9.2%} {reached:>9.2%} "
            f"{shares[width]:>9.0%} {seconds:>6.0f}",
            flush=True,
        )
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--samples", type=int, default=12_000)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--bits", type=int, nargs="*", default=list(BITS))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    settings = DistillSettings(
        epochs=options.epochs,
        batch=32,
        learning_rate=options.learning_rate,
        averaging=0.98,
        threads=options.threads,
        seed=1,
    )
    print(f"{'':<20} {'weights':>7} {'nearest':>9} {'trained':>9} {'regained':>9} {'s':>6}")
    found = {
        name: regained(name, options.bits, options.samples, settings)
        for name in options.names or NAMES
    }
    missed = [n for n, shares in found.items() if shares.get(4, 1.0) < LEAST_REGAINED]
    if missed:
        sys.exit(f"less than {LEAST_REGAINED:.0%} regained in 4 bits: {', '.join(missed)}")


if __name__ == "__main__":
    main()
