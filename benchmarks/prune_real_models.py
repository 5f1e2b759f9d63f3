"""Prune real networks step by step, and print what is left of their quality and how fast they are.

    python benchmarks/prune_real_models.py [--quick] [NAME...]

fashion_resnet (accuracy, BatchNormalizations not fused), EfficientNet-Lite0 (the share of images
that get the class that the float model gives them) and RapidOCR's recogniser (the share of lines
read without a mistake; the float model's own share stands in the first row). Other names of
evaluation.catalogue can be given, such as minilm_l3. Calibration takes 128 unlabelled samples.

For each ratio, what the same cut leaves without any repair, with the means of removed channels in
the biases, with the layers behind the cut refitted, and with BatchNormalization statistics
estimated anew as well. A ratio at which the best of these loses more than half of the quality ends
the curve. Then whole blocks go, one after the other. Speed-ups are measured against the original,
interleaved, at batch 1 and 8. --quick takes one ratio and one block.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from evaluation.catalogue import EVALUATIONS
from evaluation.evaluation import Evaluation, predictor

from trimton.core.errors import TrimtonError
from trimton.perf.hardware import describe
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.save import save_model
from trimton.transforms.prune import PruneSettings, prune
from trimton.transforms.prune.cost_profile import speedup
from trimton.transforms.report import TransformReport

NAMES = ("fashion_resnet", "efficientnet_lite0", "rapidocr_rec")
RATIOS = (0.125, 0.25, 0.5)
BLOCKS = (1, 2)
RECOVERIES: Mapping[str, Mapping[str, bool]] = {
    "none": {"fold_constants": False, "refit": False, "statistics": False},
    "constants": {"refit": False, "statistics": False},
    "refit": {"statistics": False},
    "refit + statistics": {"statistics": True},
}
BROKEN = 0.5
# The channels that a kernel takes at once: 16 with AVX-512, else 8.
BLOCK = 16 if "avx512f" in describe().instruction_sets else 8
BATCHES = (1, 8)
CALIBRATION = 128


@dataclass(frozen=True)
class Bench:
    """A network with its data; ``model`` is ``evaluation.model``, loaded."""

    evaluation: Evaluation
    model: ir.Model

    def quality(self, model: ir.Model) -> float:
        """What the evaluation's metric says of ``model``."""
        with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
            path = Path(folder) / "model.onnx"
            save_model(model, path)
            return self.evaluation.quality(predictor(path))

    def samples(self) -> dict[str, Array]:
        """Calibration samples, without labels."""
        arrays = self.evaluation.samples()
        return {name: array[:CALIBRATION] for name, array in arrays.items()}

    def speedups(self, model: ir.Model) -> tuple[float, ...]:
        """How many times as fast as the original, at each of BATCHES."""
        samples = self.samples()
        feeds = ({name: array[:batch] for name, array in samples.items()} for batch in BATCHES)
        return tuple(speedup(self.model, model, feed) for feed in feeds)

    def pruned(self, settings: PruneSettings) -> tuple[ir.Model, TransformReport, float]:
        """The pruned model, its report, and the seconds that it took."""
        start = time.perf_counter()
        model, report = prune(self.model, settings, self.samples())
        return model, report, time.perf_counter() - start


def row(name: str, report: TransformReport, quality: float, seconds: float) -> str:
    """One line; the speed follows where it is measured."""
    before, after = report.before, report.after
    macs = "?" if not before.macs or after.macs is None else f"{after.macs / before.macs:.2f}"
    parameters = after.parameters / before.parameters
    return f"{name:<34} {parameters:>6.2f} {macs:>6} {quality:>8.1%} {seconds:>6.0f}"


def curve(bench: Bench, ratios: tuple[float, ...]) -> Iterator[str]:
    """The same cut with every recovery, at growing ratios up to where the network breaks."""
    whole = bench.quality(bench.model)
    for ratio in ratios:
        best = 0.0
        for name, recovery in RECOVERIES.items():
            settings = PruneSettings(ratio=ratio, multiple=BLOCK, **recovery)  # type: ignore[arg-type]
            model, report, seconds = bench.pruned(settings)
            quality = bench.quality(model)
            best = max(best, quality)
            line = row(f"ratio {ratio:g}, {name}", report, quality, seconds)
            if name == "none":  # the others are as fast: the same cut
                line += "".join(f" {times:>8.2f}" for times in bench.speedups(model))
            yield line
        if best < BROKEN * whole:
            break


def depth(bench: Bench, counts: tuple[int, ...]) -> Iterator[str]:
    """Whole blocks, with refit and statistics."""
    for count in counts:
        try:
            model, report, seconds = bench.pruned(PruneSettings(blocks=count))
        except TrimtonError as error:
            yield f"{count} blocks: {error}"
            break
        quality = bench.quality(model)
        speed = "".join(f" {times:>8.2f}" for times in bench.speedups(model))
        yield row(f"{count} block{'s' if count > 1 else ''}", report, quality, seconds) + speed
        gone = (step for step in report.steps if step.name == "drop-block")
        yield "".join(f"    {s.detail['kind']} up to {s.detail['block']}\n" for s in gone).rstrip()
        if quality < BROKEN * bench.quality(bench.model):
            break


def main() -> None:
    arguments = sys.argv[1:]
    is_quick = "--quick" in arguments
    wanted = [name for name in arguments if name != "--quick"] or list(NAMES)
    for name in wanted:
        evaluation = EVALUATIONS[name]()
        bench = Bench(evaluation, load_model(evaluation.model))
        print(
            f"\n{name}: {evaluation.metric} {bench.quality(bench.model):.1%} before\n"
            f"{'':<34} {'params':>6} {'MACs':>6} {'quality':>8} {'s':>6}"
            + "".join(f" {f'batch {batch}':>8}" for batch in BATCHES)
        )
        for line in curve(bench, RATIOS[1:2] if is_quick else RATIOS):
            print(line, flush=True)
        for line in depth(bench, BLOCKS[:1] if is_quick else BLOCKS):
            print(line, flush=True)


if __name__ == "__main__":
    main()
