"""Prune RapidOCR's recogniser to a speed, distil it on rendered lines, and print what it reads.

    python benchmarks/distill_real_models.py [--ratio R] [--lines N] [--epochs N] [--threads N]

The teacher reads lines of text (48 x 320 pixels, 6,625 characters). Students lose the share
``--ratio`` of their channels: without any repair, refitted on 128 lines (no gradients), and
distilled from there on ``--lines`` unlabelled lines that are neither among those nor among the 512
test lines. The quality is the share of test lines that are read without a mistake, the agreement
that of the steps that get the teacher's character; speed is measured in ONNX Runtime, interleaved,
with one line. What is finished is kept in ``--work``, and so is the state of a training: a
benchmark that was killed goes on. Exit code 1 if the student is not 1.5 times as fast, or reads
fewer lines distilled than refitted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import onnx_ir as ir
from evaluation import text_lines
from evaluation.catalogue import EVALUATIONS
from evaluation.evaluation import Evaluation, answers, predictor

from trimton.core.files import write_text
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
class Row:
    """A model: its speed over the teacher's, lines read rightly, steps that agree."""

    speed: float
    lines: float
    agreement: float

    def text(self, name: str) -> str:
        return f"{name:<34} {self.speed:>6.2f} {self.lines:>8.2%} {self.agreement:>10.2%}"


@dataclass(frozen=True)
class Bench:
    """The recogniser and its data; what is finished is kept in ``work``."""

    evaluation: Evaluation
    teacher: ir.Model
    work: Path

    def row(self, name: str, make: Callable[[], ir.Model]) -> tuple[ir.Model, Row]:
        """The model that ``make`` gives, and its row of the table, printed."""
        file, measured = self.work / f"{name}.onnx", self.work / f"{name}.json"
        if not measured.exists():
            save_model(make(), file)
            write_text(measured, json.dumps(asdict(self._measured(file))))
        row = Row(**json.loads(measured.read_text()))
        print(row.text(name), flush=True)
        return load_model(file), row

    def _measured(self, file: Path) -> Row:
        predict = predictor(file)
        test = {"x": text_lines.normalised(text_lines.text_lines()["test"])}
        best = answers(predict, test, OUTPUT).argmax(axis=2)
        wanted = answers(predictor(self.evaluation.model), test, OUTPUT).argmax(axis=2)
        return Row(
            speed=speedup(self.teacher, load_model(file), self.evaluation.request),
            lines=self.evaluation.quality(predict),
            agreement=float((best == wanted).mean()),
        )


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
    teacher = load_model(evaluation.model)
    work = options.work / f"rapidocr_rec-{options.ratio:g}-{options.lines}-{options.epochs}"
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(evaluation, teacher, work)
    settings = DistillSettings(
        epochs=options.epochs,
        batch=16,
        learning_rate=5e-4,
        temperature=1.0,
        averaging=0.99,
        threads=options.threads,
        seed=1,
    )

    def distilled() -> ir.Model:
        lines = {"x": text_lines.normalised(text_lines.training_lines(options.lines))}
        heard = Listeners(training=on_progress)
        return distill(teacher, student, lines, settings, work, listeners=heard)[0]

    cut = PruneSettings(ratio=options.ratio)
    print(f"{'rapidocr_rec':<34} {'speed':>6} {'lines':>8} {'agreement':>10}")
    bench.row("teacher", lambda: teacher)
    bench.row("pruned", lambda: prune(teacher, replace(cut, refit=False))[0])
    student, refitted = bench.row(
        "pruned, refitted", lambda: prune(teacher, cut, evaluation.samples())[0]
    )
    _, trained = bench.row("and distilled", distilled)
    if trained.lines < refitted.lines or trained.speed < LEAST_SPEED:
        sys.exit(f"missed: {trained.lines:.2%} of the lines, {trained.speed:.2f}x")


if __name__ == "__main__":
    main()
