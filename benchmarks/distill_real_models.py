"""Prune RapidOCR's recogniser to a speed, distil it on rendered lines, and print what it reads.

    python benchmarks/distill_real_models.py [--ratio R] [--lines N] [--epochs N] [--threads N]

The teacher reads lines of text (48 x 320 pixels, 6,625 characters). Students lose the share
``--ratio`` of their channels: without any repair, refitted on 128 lines (no gradients), and
distilled from there on ``--lines`` unlabelled lines that are neither among those nor among the 512
test lines. The quality is the share of test lines that are read without a mistake, the agreement
that of the steps that get the teacher's character; speed is measured in ONNX Runtime, interleaved,
with one line. State is kept in ``--work``: a benchmark that was killed goes on. Exit code 1 if a
student that is 1.5 times as fast reads fewer lines distilled than refitted.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from evaluation import text_lines
from evaluation.catalogue import EVALUATIONS
from evaluation.evaluation import Evaluation, answers, predictor

from trimton.plugin.server.installation import home
from trimton.transforms.distill.distilling import Listeners, distill
from trimton.transforms.distill.settings import DistillSettings
from trimton.transforms.distill.trainer import TrainingProgress
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.save import save_model
from trimton.transforms.prune import PruneSettings, prune
from trimton.transforms.prune.cost_profile import speedup

OUTPUT = "softmax_11.tmp_0"
LEAST_SPEED = 1.5


@dataclass(frozen=True)
class Bench:
    """The recogniser and its data."""

    evaluation: Evaluation
    teacher: ir.Model

    def line(self, name: str, model: ir.Model, seconds: float) -> tuple[str, float, float]:
        """A row of the table, the quality and the speed of ``model``."""
        with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
            file = Path(folder) / "model.onnx"
            save_model(model, file)
            predict = predictor(file)
            test = {"x": text_lines.normalised(text_lines.text_lines()["test"])}
            best = answers(predict, test, OUTPUT).argmax(axis=2)
            wanted = answers(predictor(self.evaluation.model), test, OUTPUT).argmax(axis=2)
            quality, same = self.evaluation.quality(predict), float((best == wanted).mean())
        speed = speedup(self.teacher, model, self.evaluation.request)
        text = f"{name:<34} {speed:>6.2f} {quality:>8.2%} {same:>10.2%} {seconds / 60:>6.1f}"
        return text, quality, speed


def on_progress(now: TrainingProgress) -> None:
    if now.done % 20 == 0:
        text = f"step {now.done} of {now.steps}, held-out loss {now.best_held_out:.4f}"
        print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ratio", type=float, default=0.3)
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", type=Path, default=home() / "benchmarks" / "distill")
    options = parser.parse_args()
    evaluation = EVALUATIONS["rapidocr_rec"]()
    bench = Bench(evaluation, load_model(evaluation.model))
    print(f"{'rapidocr_rec':<34} {'speed':>6} {'lines':>8} {'agreement':>10} {'min':>6}")
    print(bench.line("teacher", bench.teacher, 0)[0], flush=True)
    cut = PruneSettings(ratio=options.ratio, refit=False)
    print(bench.line("pruned", prune(bench.teacher, cut)[0], 0)[0], flush=True)
    start = time.monotonic()
    student, _ = prune(bench.teacher, PruneSettings(ratio=options.ratio), evaluation.samples())
    text, refitted, _ = bench.line("pruned, refitted", student, time.monotonic() - start)
    print(text, flush=True)
    settings = DistillSettings(
        epochs=options.epochs,
        batch=16,
        learning_rate=5e-4,
        temperature=1.0,
        averaging=0.99,
        threads=options.threads,
        seed=1,
    )
    lines = {"x": text_lines.normalised(text_lines.training_lines(options.lines))}
    start = time.monotonic()
    trained, _ = distill(
        bench.teacher,
        student,
        lines,
        settings,
        options.work,
        listeners=Listeners(training=on_progress),
    )
    text, distilled, speed = bench.line("and distilled", trained, time.monotonic() - start)
    print(text)
    if distilled < refitted or speed < LEAST_SPEED:
        sys.exit(f"missed: {distilled:.2%} of the lines after {refitted:.2%}, {speed:.2f}x")


if __name__ == "__main__":
    main()
