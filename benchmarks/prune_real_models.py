"""Prune real networks step by step, and print what is left of their quality and how fast they are.

    python benchmarks/prune_real_models.py [--quick] [--samples N] [--only PART] [NAME...]

EfficientNet-Lite0 (the share of images that get the class that the float model gives them) and
RapidOCR's recogniser (the share of lines read without a mistake; the float model's own share
stands in the first row). Other names of evaluation.catalogue can be given, such as minilm_l3.
Calibration takes 256 unlabelled samples; BatchNormalizations are fused first, as the guide says.
--only takes one part of the table:

  recoveries  the same share of every group: what is left without any repair, with the means of
              removed channels in the biases, and with the layers behind the cut refitted; in the
              model with its BatchNormalizations, with their statistics estimated anew first
  inner       the same share of the channels inside blocks, refitted: those that sums carry from
              block to block stay, and so do the first and the last layer
  cost        a share of the multiply-accumulates: each group keeps what loses least for it
  blocks      whole blocks, one after the other

A row that loses more than half of the quality ends its part. Speed-ups are measured against the
original, interleaved, at batch 1 and 8. --quick takes one row of each part.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import onnx_ir as ir
from evaluation import photographs, text_lines
from evaluation.catalogue import EVALUATIONS
from evaluation.evaluation import Evaluation, predictor

from trimton.core.errors import TrimtonError
from trimton.transforms.fuse import fuse
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.save import save_model
from trimton.transforms.prune import PruneSettings, prune
from trimton.transforms.prune.cost_profile import speedup
from trimton.transforms.report import TransformReport

NAMES = ("efficientnet_lite0", "rapidocr_rec")
# Layers that make what sums carry on, and the first and last ones. The recogniser's backbone has
# no such sums; what its transformer blocks carry is normalised, so that no cut of it is exact.
OUTER: Mapping[str, tuple[str, ...]] = {
    "efficientnet_lite0": ("*_project_conv", "_conv_stem", "_conv_head"),
    "rapidocr_rec": ("p2o.Conv.34",),
}
# Where 128 calibration samples are not enough: the input, and as many more as asked for.
MORE: Mapping[str, tuple[str, Callable[[int], Array]]] = {
    "efficientnet_lite0": (
        "input",
        lambda count: photographs.normalised(photographs.more_photographs(count)),
    ),
    "rapidocr_rec": ("x", lambda count: text_lines.normalised(text_lines.training_lines(count))),
}
BATCHES = (1, 8)
BROKEN = 0.5
REPAIRS: Mapping[str, Mapping[str, bool]] = {
    "none": {"fold_constants": False, "refit": False, "statistics": False},
    "constants": {"refit": False, "statistics": False},
    "refit": {"statistics": False},
}


@dataclass(frozen=True)
class Row:
    """One way to prune. ``keeps_batchnorm``: of the model as it is shipped, not of the fused one.

    ``is_timed`` unless another row makes the same cut.
    """

    name: str
    settings: PruneSettings
    keeps_batchnorm: bool = False
    is_timed: bool = True


def recoveries(model: str) -> Iterator[Row]:
    """The same cuts, with more and more of what they lost repaired."""
    for ratio in (0.125, 0.25):
        for name, repair in REPAIRS.items():
            settings = PruneSettings(ratio=ratio, **repair)  # type: ignore[arg-type]
            yield Row(f"ratio {ratio:g}, {name}", settings, is_timed=name == "none")
        settings = PruneSettings(ratio=ratio, statistics=True)
        name = f"ratio {ratio:g}, statistics + refit"
        yield Row(name, settings, keeps_batchnorm=True, is_timed=False)


def inner(model: str) -> Iterator[Row]:
    """A share of the channels inside blocks."""
    for ratio in (0.1, 0.2, 0.3):
        settings = PruneSettings(
            ratio=ratio,
            importance="reconstruction",
            exclude=OUTER.get(model, ()),
        )
        yield Row(f"inner ratio {ratio:g}, refit", settings)


def cost(model: str) -> Iterator[Row]:
    """A share of the multiply-accumulates, by channels inside blocks."""
    for target in (0.9, 0.8, 0.7):
        settings = PruneSettings(
            target_macs=target,
            allocation="cost",
            importance="reconstruction",
            exclude=OUTER.get(model, ()),
        )
        yield Row(f"inner by cost, {target:g} of MACs", settings)


def blocks(model: str) -> Iterator[Row]:
    """Whole blocks."""
    for count in (1, 2):
        yield Row(f"{count} block{'s' if count > 1 else ''}", PruneSettings(blocks=count))


PARTS: Mapping[str, Callable[[str], Iterator[Row]]] = {
    "recoveries": recoveries,
    "inner": inner,
    "cost": cost,
    "blocks": blocks,
}


@dataclass(frozen=True)
class Bench:
    """A network with its data, ``count`` calibration samples of it."""

    evaluation: Evaluation
    count: int

    @cached_property
    def shipped(self) -> ir.Model:
        """The model as it is."""
        return load_model(self.evaluation.model)

    @cached_property
    def fused(self) -> ir.Model:
        """The model without BatchNormalizations."""
        return fuse(self.shipped)[0]

    @cached_property
    def whole(self) -> float:
        """The quality of the model itself."""
        return self.quality(self.shipped)

    @cached_property
    def samples(self) -> dict[str, Array]:
        """Calibration samples, without labels."""
        arrays = self.evaluation.samples()
        lacking = self.count - min(map(len, arrays.values()))
        if lacking > 0 and self.evaluation.name in MORE:
            name, more = MORE[self.evaluation.name]
            arrays[name] = np.concatenate([arrays[name], more(lacking)])
        return {name: array[: self.count] for name, array in arrays.items()}

    def quality(self, model: ir.Model) -> float:
        """What the evaluation's metric says of ``model``."""
        with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
            path = Path(folder) / "model.onnx"
            save_model(model, path)
            return self.evaluation.quality(predictor(path))

    def speedups(self, model: ir.Model) -> tuple[float, ...]:
        """How many times as fast as the original, at each of BATCHES."""
        feeds = ({name: array[:n] for name, array in self.samples.items()} for n in BATCHES)
        return tuple(speedup(self.fused, model, feed) for feed in feeds)


def line(name: str, report: TransformReport, quality: float, seconds: float) -> str:
    """One line; the speed follows where it is measured."""
    before, after = report.before, report.after
    macs = "?" if not before.macs or after.macs is None else f"{after.macs / before.macs:.2f}"
    parameters = after.parameters / before.parameters
    return f"{name:<34} {parameters:>6.2f} {macs:>6} {quality:>8.1%} {seconds:>6.0f}"


def lines(bench: Bench, rows: Iterator[Row]) -> Iterator[str]:
    """One line for each of ``rows``; blocks that are gone below it."""
    for row in rows:
        start = time.perf_counter()
        model = bench.shipped if row.keeps_batchnorm else bench.fused
        try:
            made, report = prune(model, row.settings, bench.samples)
        except TrimtonError as error:
            yield f"{row.name}: {error}"
            return
        seconds = time.perf_counter() - start
        quality = bench.quality(made)
        text = line(row.name, report, quality, seconds)
        if row.is_timed:
            text += "".join(f" {times:>8.2f}" for times in bench.speedups(made))
        yield text
        gone = (step.detail for step in report.steps if step.name == "drop-block")
        yield from (f"    {detail['kind']} up to {detail['block']}" for detail in gone)
        if row.settings.refit and quality < BROKEN * bench.whole:
            return


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {', '.join(NAMES)}")
    parser.add_argument("--only", choices=PARTS, help="one part of the table")
    parser.add_argument("--samples", type=int, default=256, help="calibration samples")
    parser.add_argument("--quick", action="store_true", help="one row of each part")
    options = parser.parse_args()
    for name in options.names or NAMES:
        if name not in EVALUATIONS:
            parser.error(f"no model is named {name}; there are {', '.join(EVALUATIONS)}")
        bench = Bench(EVALUATIONS[name](), options.samples)
        print(
            f"\n{name}: {bench.evaluation.metric} {bench.whole:.1%} before, "
            f"{min(map(len, bench.samples.values()))} samples\n"
            f"{'':<34} {'params':>6} {'MACs':>6} {'quality':>8} {'s':>6}"
            + "".join(f" {f'batch {batch}':>8}" for batch in BATCHES)
        )
        for part in [options.only] if options.only else PARTS:
            rows = PARTS[part](name)
            for text in lines(bench, islice(rows, 1) if options.quick else rows):
                print(text, flush=True)


if __name__ == "__main__":
    main()
