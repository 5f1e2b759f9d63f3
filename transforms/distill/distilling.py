"""``distill``: train a smaller model on what a larger one answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import onnx_ir as ir

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.distill.account import left_out, sparsity_step, trained_step
from trimton.transforms.distill.augment import Augmentation
from trimton.transforms.distill.batches import Batch
from trimton.transforms.distill.checkpoint import Ledger
from trimton.transforms.distill.group_sparsity import GroupSparsity
from trimton.transforms.distill.interpreter import OnnxModule
from trimton.transforms.distill.objective import quality
from trimton.transforms.distill.preparing import Course, prepare
from trimton.transforms.distill.runtime import repeatable
from trimton.transforms.distill.settings import DistillSettings
from trimton.transforms.distill.straight_through import trainable_form
from trimton.transforms.distill.teacher import Answers
from trimton.transforms.distill.trainer import Trainer, TrainingProgress
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.difference import relative_difference
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.inputs import input_specs
from trimton.transforms.report import TransformReport


@dataclass(frozen=True)
class Listeners:
    """Who hears how far it is: ``answering`` of samples (done, all), ``training`` of steps."""

    answering: Callable[[int, int], None] = lambda done, count: None
    training: Callable[[TrainingProgress], None] = lambda progress: None


def distill(
    teacher: ir.Model,
    student: ir.Model,
    samples: Mapping[str, Array],
    settings: DistillSettings,
    folder: Path,
    *,
    labels: Array | None = None,
    augmentation: Augmentation | None = None,
    listeners: Listeners | None = None,
) -> tuple[ir.Model, TransformReport]:
    """``student`` with the weights that come closest to what ``teacher`` answers.

    ``samples`` are arrays by input name, first axis = samples; ``labels`` int64 [N]. ``folder``
    holds the teacher's answers and the state of the training: called again with the same
    arguments, an interrupted training goes on, to the same bits. The result is never worse on
    held-out samples than ``student``, whose weights are kept where training does not help; with
    group sparsity the last weights are taken, whatever their loss. A loss
    that is no number ends the training; the best weights before it are kept.

    Raises InputError where models, samples, labels or settings do not fit, UnsupportedModelError
    where the student cannot be trained or the teacher not be run.
    """
    heard = listeners or Listeners()
    course = prepare(
        teacher, student, samples, labels, augmentation, settings, folder, heard.answering
    )
    trained, ledger = _trained(student, course, settings, heard)
    return _better_one(student, trained, course, ledger, settings)


def _trained(
    student: ir.Model, course: Course, settings: DistillSettings, heard: Listeners
) -> tuple[ir.Model, Ledger]:
    """``student`` with the best weights that were found, and how the training went.

    Raises UnsupportedModelError where it has no weight that could be trained.
    """
    form = trainable_form(student)
    lessons, objective = course.lessons, course.objective
    learns_statistics = settings.batch_norm == "train" and lessons.batch > 1
    with repeatable(course.threads):
        module = OnnxModule(
            form.model,
            batch_norm="train" if learns_statistics else "frozen",
            check=_inputs_of(student, lessons.held_out[: lessons.smallest]),
            outputs=objective.wanted,
        )
        if not any(True for _ in module.parameters()):
            raise UnsupportedModelError(
                "it has no weights of floating point or in 8 bits to train."
            )
        sparsity = _sparsity(module, student, settings, settings.epochs * lessons.steps)
        ledger = Trainer(
            module, objective, lessons, settings, course.state, heard.training, sparsity
        ).run()
        module.load_state_dict(ledger.best)
        return form.stored(module.to_onnx(), student), ledger


def _sparsity(
    module: OnnxModule, student: ir.Model, settings: DistillSettings, steps: int
) -> GroupSparsity | None:
    """What makes channels small, where ``settings`` ask for it."""
    if not settings.group_sparsity:
        return None
    return GroupSparsity(module, student, settings.group_sparsity, steps, settings.warmup)


def _better_one(
    student: ir.Model,
    trained: ir.Model,
    course: Course,
    ledger: Ledger,
    settings: DistillSettings,
) -> tuple[ir.Model, TransformReport]:
    """``trained`` where it is better than ``student``, judged as it will run: by ONNX Runtime.

    Where channels were made small it is taken as it is, if only its outputs are numbers.
    """
    objective, held_out = course.objective, course.lessons.held_out
    old: Mapping[str, Array] = course.untrained
    ask = Answers(trained, objective.kinds, threads=course.threads)
    new: Mapping[str, Array] = ask(held_out.inputs)
    before, after = (quality(objective, made, held_out) for made in (old, new))
    is_better = isfinite(after.loss) and not before.loss <= after.loss
    if settings.group_sparsity and ledger.best_epoch:
        is_better = isfinite(after.loss)
    if not is_better:
        trained, after, new = student.clone(), before, old
    return trained, TransformReport(
        transform="distill",
        changed=is_better,
        before=model_cost(student),
        after=model_cost(trained),
        max_relative_difference=_largest_difference(old, new),
        steps=(
            trained_step(ledger, before, after, len(held_out), settings),
            *sparsity_step(student, trained, settings),
        ),
        skipped=tuple(left_out(ledger, objective.pairs, course.lessons.batch, settings)),
    )


def _inputs_of(model: ir.Model, batch: Batch) -> dict[str, Array]:
    """What ``model`` reads of ``batch``: a student may do without some inputs of its teacher."""
    return {spec.name: batch.inputs[spec.name] for spec in input_specs(model) if not spec.optional}


def _largest_difference(old: Mapping[str, Array], new: Mapping[str, Array]) -> float | None:
    """How far outputs moved on held-out samples; None where they were no numbers before."""
    moved = relative_difference(dict(old), dict(new))
    return moved if isfinite(moved) else None
