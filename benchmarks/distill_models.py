"""Prune fashion_resnet hard, distil it, and print what that costs beside what it saves.

    python benchmarks/distill_models.py [--quick] [--epochs N] [--only TEXT] [--threads N]

Everything starts from the ONNX file. Students are cut from the teacher's graph without any repair
and trained on the 60,000 training images, without their labels and with them. Beside them stands
Torch-Pruning from the PyTorch source, cut to about as few multiply-accumulates and trained for as
many seconds in the same way. Accuracy is that on the 10,000 test images; speed is that in ONNX
Runtime in interleaved runs (the lower quartiles), at batch 1, 8 and 32, over the teacher's.

The same student is judged in int8, too: quantising it costs no training.

State is kept in ``--work``, so that a benchmark that was killed goes on. ``--quick`` trains the
first student for two epochs. Exit code 1 if a target is missed: at most 0.3 points lost at 3 times
the speed, 1.0 at 5 times, each within 20 minutes of training. Needs Debian's
dataset-fashion-mnist.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir
from evaluation.catalogue import EVALUATIONS
from evaluation.evaluation import Evaluation, predictor
from torch_pruning_rival import pruned_and_distilled

from trimton.core.files import write_text
from trimton.perf.hardware import describe
from trimton.plugin.samples import Samples, import_function, load_samples
from trimton.plugin.server.installation import home
from trimton.transforms.distill.distilling import Listeners, distill
from trimton.transforms.distill.settings import DistillSettings
from trimton.transforms.distill.trainer import TrainingProgress
from trimton.transforms.fuse import fuse
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.inputs import input_specs
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.quantised import quantised_nodes
from trimton.transforms.graph.save import save_model
from trimton.transforms.prune import PruneSettings, prune
from trimton.transforms.prune.cost_profile import speedup
from trimton.transforms.quantize import QuantizeSettings, quantize
from trimton.transforms.quantize.targets import target_of_processor

BATCHES = (1, 8, 32)
MOST_SECONDS = 20 * 60
SETTINGS = DistillSettings(
    optimiser="sgd",
    learning_rate=0.05,
    weight_decay=5e-4,
    held_out=0.05,
    precision="bfloat16",
    seed=1,
)


@dataclass(frozen=True)
class Target:
    """A student, the speed that it must have at one batch at least, and what it may lose.

    ``epochs`` make up about as many minutes for every student. ``rival_ratio`` is the share of
    channels that the rival cuts for about as few MACs. ``is_quantised`` says that the speed is that
    of the trained student in int8.
    """

    name: str
    cut: PruneSettings
    speed: float
    most_points_lost: float
    epochs: int
    rival_ratio: float
    is_quantised: bool = False

    @property
    def student(self) -> str:
        """What is trained: the same for targets whose names differ behind a comma."""
        return self.name.split(",")[0]


INT8 = QuantizeSettings(target=target_of_processor(describe().instruction_sets).name)
CUT = PruneSettings(ratio=0.5, multiple=16, refit=False)
TARGETS = (
    Target("half the channels", CUT, 3.0, 0.3, 30, 0.5),
    Target("half the channels, int8", CUT, 5.0, 1.0, 30, 0.5, is_quantised=True),
    Target(
        "an eighth of the MACs",
        replace(CUT, ratio=0.65, blocks=2),
        5.0,
        1.0,
        60,
        0.65,
    ),
)


@dataclass(frozen=True)
class Row:
    """One model: its speeds by batch, accuracy in percent, seconds of training."""

    name: str
    macs: float
    speeds: tuple[float, ...]
    accuracy: float
    seconds: float

    def line(self, baseline: float) -> str:
        speeds = " ".join(f"{speed:>8.2f}" for speed in self.speeds)
        return (
            f"{self.name:<46} {self.macs:>5.2f} {speeds} {self.accuracy:>9.2f} "
            f"{self.accuracy - baseline:>+6.2f} {self.seconds / 60:>5.1f}"
        )


class Clock:
    """Seconds of a training that may be interrupted, kept in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._before = float(file.read_text()) if file.exists() else 0.0
        self._started = self._written = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def tick(self, _: object = None) -> None:
        if time.monotonic() - self._written > 10:
            self.stop()

    def stop(self) -> None:
        self._written = time.monotonic()
        write_text(self._file, str(self.seconds))


@dataclass(frozen=True)
class Course:
    """What students are trained and judged on, and where their state is kept.

    ``fused`` is the teacher as it runs fastest, which speeds are measured against.
    """

    evaluation: Evaluation
    teacher: ir.Model
    fused: ir.Model
    training: Samples
    settings: DistillSettings
    work: Path

    def rows(self, target: Target, *, with_rival: bool) -> Iterator[Row]:
        """The student before training, without labels and with them, then the rival's."""
        student, report = prune(self.teacher, target.cut, self.evaluation.samples())
        macs = (report.after.macs or 0) / (report.before.macs or 1)
        yield self._row(f"{target.name}, untrained", student, macs, 0)
        seconds = 0.0
        for with_labels in (False, True):
            trained, seconds = self._distilled(target, student, with_labels)
            words = "with labels" if with_labels else "without labels"
            if target.is_quantised:
                trained, _ = quantize(fuse(trained)[0], self.evaluation.samples(), INT8)
            yield self._row(f"{target.name}, {words}", trained, macs, seconds)
        if with_rival:
            rival = pruned_and_distilled(
                self.evaluation.model,
                target.rival_ratio,
                seconds,
                self.settings.threads or 1,
                with_labels=True,
            )
            smaller = (model_cost(rival).macs or 0) / (report.before.macs or 1)
            yield self._row("  Torch-Pruning, with labels", rival, smaller, seconds)

    def _distilled(
        self, target: Target, student: ir.Model, with_labels: bool
    ) -> tuple[ir.Model, float]:
        settings = replace(self.settings, epochs=target.epochs)
        clock = Clock(self.work / f"{target.student}-{with_labels}-{target.epochs}.seconds")

        def on_progress(now: TrainingProgress) -> None:
            clock.tick()
            if now.done % 400 == 0:
                text = f"{target.name}: epoch {now.epoch}, held-out loss {now.best_held_out:.4f}"
                print(text, file=sys.stderr, flush=True)

        trained, _ = distill(
            self.teacher,
            student,
            self.training.inputs,
            settings,
            self.work,
            labels=self.training.labels if with_labels else None,
            augmentation=import_function(
                f"{self.evaluation.model.parents[1]}/training_set.py:vary"
            ),  # type: ignore[arg-type]
            listeners=Listeners(lambda done, count: clock.tick(), on_progress),
        )
        clock.stop()
        return trained, clock.seconds

    def accuracy(self, model: ir.Model) -> float:
        """Percent of the test images that ``model`` names rightly."""
        with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
            file = Path(folder) / "model.onnx"
            save_model(model, file)
            return 100 * self.evaluation.quality(predictor(file))

    def _row(self, name: str, model: ir.Model, macs: float, seconds: float) -> Row:
        fused = model if quantised_nodes(model) else fuse(model)[0]
        feeds = [{n: a[:count] for n, a in self.training.inputs.items()} for count in BATCHES]
        speeds = tuple(speedup(self.fused, fused, feed) for feed in feeds)
        return Row(name, macs, speeds, self.accuracy(fused), seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--epochs", type=int, help="of every student, instead of its own")
    parser.add_argument("--only", default="", metavar="TEXT", help="students so named")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", type=Path, default=home() / "benchmarks" / "distill")
    parser.add_argument("--no-rival", action="store_true")
    options = parser.parse_args()
    targets = tuple(target for target in TARGETS if options.only in target.name)
    if options.quick:
        targets = (replace(TARGETS[0], epochs=2),)
    elif options.epochs is not None:
        targets = tuple(replace(target, epochs=options.epochs) for target in targets)
    settings = replace(SETTINGS, views=2 if options.quick else 5, threads=options.threads)
    evaluation = EVALUATIONS["fashion_resnet"]()
    teacher = load_model(evaluation.model)
    training = load_samples(
        f"{evaluation.model.parents[1]}/training_set.py:images", input_specs(teacher)
    )
    course = Course(evaluation, teacher, fuse(teacher)[0], training, settings, options.work)
    baseline = course.accuracy(teacher)
    print(f"fashion_resnet: {baseline:.2f} % of the test images")
    print(f"{options.threads} threads, {settings.precision}\n")
    batches = " ".join(f"{f'batch {n}':>8}" for n in BATCHES)
    print(f"{'student':<46} {'MACs':>5} {batches} {'accuracy':>9} {'':>6} {'min':>5}")
    missed = []
    for target in targets:
        rows = []
        for row in course.rows(target, with_rival=not options.no_rival):
            print(row.line(baseline), flush=True)
            rows.append(row)
        trained = rows[1:3]
        lost = baseline - max(row.accuracy for row in trained)
        fastest = max(max(row.speeds) for row in trained)
        missed += [
            f"{target.name}: {what}"
            for what, is_missed in (
                (f"{lost:.2f} points lost", lost > target.most_points_lost),
                (f"{fastest:.2f} times the speed", fastest < target.speed),
                ("time", max(row.seconds for row in trained) > MOST_SECONDS),
            )
            if is_missed
        ]
    if missed and not options.quick:
        sys.exit(f"targets missed: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
