"""Blocks, dynamic quantisation and half precision on real models, beside ONNX Runtime's tools.

    python benchmarks/precision_models.py [--only TEXT] [NAME...]

For each model: its quality in the kernels of this machine, size and latency as shares of the
float file's (batch 1, one thread; the models take turns, the median of the rounds' ratios), and
the seconds that making it took. A tool that refuses a model or makes one that does not run is
shown with its reason. --only takes the rows whose name has this text. Models and data are fetched
once.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from evaluation.catalogue import EVALUATIONS
from evaluation.evaluation import Evaluation, predictor
from onnxruntime.quantization import quantize_dynamic as ort_quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.quantization.preprocess import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from quantize_measures import latencies_ms

from trimton.core.errors import TrimtonError
from trimton.perf.hardware import describe
from trimton.transforms.graph.load import load_model, one_line
from trimton.transforms.graph.save import save_model
from trimton.transforms.graph.session import ORT_ERRORS
from trimton.transforms.precision import CastSettings, cast
from trimton.transforms.quantize.dynamic import DynamicSettings, quantize_dynamic
from trimton.transforms.quantize.targets import target_of_processor
from trimton.transforms.quantize.weight_only import WeightOnlySettings, quantize_weights

NAMES = ("minilm_l3", "magika", "efficientnet_lite0", "silero_vad")
SECONDS_OF_LATENCY = 10
MOST_CHARACTERS = 110
HEAD = f"{'':<34} {'quality':>8} {'size':>6} {'latency':>8} {'seconds':>8}"

# What the tools raise for a model that they cannot work with.
REFUSALS: tuple[type[Exception], ...] = (
    *(TrimtonError, ValueError, AttributeError, onnx.checker.ValidationError),
    *ORT_ERRORS,
)

Maker = Callable[[Evaluation, Path], None]


@dataclass(frozen=True)
class Result:
    """One model that runs; ``size`` and ``latency`` are shares of the float model's."""

    name: str
    model: Path
    quality: float
    size: float
    seconds: float
    latency: float = np.nan

    def line(self) -> str:
        return (
            f"{self.name:<34} {self.quality:>8.4f} {self.size:>6.2f} {self.latency:>8.2f} "
            f"{self.seconds:>8.1f}"
        )


def blocks(settings: WeightOnlySettings, *, with_samples: bool = False) -> Maker:
    """Trimton's weights in blocks."""

    def make(evaluation: Evaluation, result: Path) -> None:
        samples = evaluation.samples() if with_samples else None
        save_model(quantize_weights(load_model(evaluation.model), settings, samples)[0], result)

    return make


def dynamic(evaluation: Evaluation, result: Path) -> None:
    """Trimton's dynamic quantisation for this machine."""
    settings = DynamicSettings(target_of_processor(describe().instruction_sets).name)
    save_model(quantize_dynamic(load_model(evaluation.model), settings)[0], result)


def half(settings: CastSettings) -> Maker:
    """Trimton's half precision."""

    def make(evaluation: Evaluation, result: Path) -> None:
        save_model(cast(load_model(evaluation.model), settings)[0], result)

    return make


def ort_dynamic(evaluation: Evaluation, result: Path) -> None:
    """ONNX Runtime's quantize_dynamic after its own preparation."""
    prepared = result.with_suffix(".prepared.onnx")
    quant_pre_process(evaluation.model, prepared, skip_symbolic_shape=True)
    ort_quantize_dynamic(prepared, result, per_channel=True)


def ort_blocks(bits: int, block: int) -> Maker:
    """ONNX Runtime's MatMulNBitsQuantizer, products and tables, kernels with int8."""

    def make(evaluation: Evaluation, result: Path) -> None:
        quantizer = MatMulNBitsQuantizer(
            onnx.load(evaluation.model),
            bits=bits,
            block_size=block,
            is_symmetric=True,
            accuracy_level=4,
            op_types_to_quantize=("MatMul", "Gather") if bits == 4 else ("MatMul",),
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(result))

    return make


def ort_float16(evaluation: Evaluation, result: Path) -> None:
    """ONNX Runtime's float16 converter."""
    onnx.save(convert_float_to_float16(onnx.load(evaluation.model), keep_io_types=True), result)


MAKERS: Mapping[str, Maker] = {
    "dynamic int8": dynamic,
    "  ONNX Runtime": ort_dynamic,
    "8 bits, blocks of 128": blocks(WeightOnlySettings(bits=8, block=128)),
    "  ONNX Runtime, products": ort_blocks(8, 128),
    "4 bits, blocks of 32": blocks(WeightOnlySettings(bits=4, block=32)),
    "  compensated on samples": blocks(WeightOnlySettings(bits=4, block=32), with_samples=True),
    "  with zero points, float32": blocks(
        WeightOnlySettings(bits=4, block=32, symmetric=False, compute="float32")
    ),
    "  ONNX Runtime, products and tables": ort_blocks(4, 32),
    "8 bits, others restored": blocks(WeightOnlySettings(bits=8, block=128, restore=True)),
    "float16, for a CPU": half(CastSettings("float16")),
    "float16, for a GPU": half(CastSettings("float16", target="gpu")),
    "  ONNX Runtime, float16": ort_float16,
    "bfloat16, for a CPU": half(CastSettings("bfloat16")),
}


def result(name: str, maker: Maker, evaluation: Evaluation, folder: Path) -> Result | str:
    """What ``maker`` makes, but for its latency; the reason where it cannot be used."""
    path = folder / f"{len(list(folder.iterdir()))}.onnx"
    start = time.perf_counter()
    try:
        maker(evaluation, path)
        seconds = time.perf_counter() - start
        quality = evaluation.quality(predictor(path))
    except (
        TrimtonError,
        *ORT_ERRORS,
        ValueError,
        AttributeError,
        onnx.checker.ValidationError,
    ) as e:
        return one_line(str(e))[:MOST_CHARACTERS]
    size = path.stat().st_size / evaluation.model.stat().st_size
    return Result(name, path, quality, size, seconds)


def bench(name: str, only: str) -> None:
    """Print the table of one model, the rows whose name has the text ``only``."""
    evaluation = EVALUATIONS[name]()
    float_quality = evaluation.quality(predictor(evaluation.model))
    size_mib = evaluation.model.stat().st_size / 2**20
    print(f"\n{name}: {evaluation.metric} {float_quality:.4f} in float, {size_mib:.1f} MiB")
    with tempfile.TemporaryDirectory(prefix="trimton-") as text:
        found = {
            title: result(title, maker, evaluation, Path(text))
            for title, maker in MAKERS.items()
            if only in title
        }
        made = {title: one for title, one in found.items() if isinstance(one, Result)}
        models = {"float": evaluation.model} | {title: one.model for title, one in made.items()}
        times = latencies_ms(models, evaluation.request, SECONDS_OF_LATENCY)
    ratios = {title: float(np.median(ms / times["float"])) for title, ms in times.items()}
    print(HEAD)
    for title, one in found.items():
        text = f"{title:<34} {one}"
        if isinstance(one, Result):
            text = replace(one, latency=ratios[title]).line()
        print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="See the head of this file.")
    parser.add_argument("--only", default="", metavar="TEXT")
    parser.add_argument("names", nargs="*", metavar="NAME")
    given = parser.parse_args()
    if wrong := set(given.names) - set(EVALUATIONS):
        parser.error(f"{wrong.pop()} is none of {', '.join(EVALUATIONS)}")
    logging.disable(logging.WARNING)
    machine = describe()
    print(machine.cpu_model, *machine.instruction_sets)
    for name in given.names or NAMES:
        bench(name, given.only)


if __name__ == "__main__":
    main()
