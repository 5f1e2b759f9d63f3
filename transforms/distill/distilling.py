"""``distill``: train a smaller model on what a larger one answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from trimton.transforms.distill.account import left_out, trained_step
from trimton.transforms.distill.augment import Augmentation
from trimton.transforms.distill.batches import (
    Batch,
    BatchMaker,
    BatchSource,
    FreshBatches,
    StoredBatches,
    bytes_of,
)
from trimton.transforms.distill.checkpoint import Ledger
from trimton.transforms.distill.identity import identify
from trimton.transforms.distill.interface import check_models, check_samples, labelled_output
from trimton.transforms.distill.interpreter import OnnxModule
from trimton.transforms.distill.kinds import output_kinds
from trimton.transforms.distill.mixing import MixedLabels
from trimton.transforms.distill.objective import Objective, quality, variances
from trimton.transforms.distill.pairs import Pair, check_pairs, find_pairs
from trimton.transforms.distill.runtime import repeatable, threads_or_cores
from trimton.transforms.distill.settings import DistillSettings
from trimton.transforms.distill.split import split, view_rng
from trimton.transforms.distill.teacher import Answers, fixed_batch
from trimton.transforms.distill.trainer import Lessons, Trainer, TrainingProgress
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.difference import relative_difference
from trimton.transforms.graph.edit import Array
from trimton.transforms.report import TransformReport

_JUDGED_AT_ONCE = 256
# Samples that variances of the teacher's values, and sizes of stored batches, are taken from.
_PROBED = 256
_STATE = "state.pt"


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
    held-out samples than ``student``, whose weights are kept where training does not help. A loss
    that is no number ends the training; the best weights before it are kept.

    Raises InputError where models, samples, labels or settings do not fit, UnsupportedModelError
    where the student cannot be trained or the teacher not be run.
    """
    fixed = fixed_batch(student)
    check_models(teacher, student)
    count = check_samples(samples, labels, fixed)
    pairs = _pairs(teacher, student, settings)
    classes = None if labels is None else int(labels.max(initial=0)) + 1
    kinds = output_kinds(teacher, dict(settings.losses), classes=classes)
    labelled = labelled_output(teacher, kinds, labels)
    threads = threads_or_cores(settings.threads)
    names = tuple(dict.fromkeys([*kinds, *(theirs for theirs, _ in pairs)]))
    ask = Answers(teacher, names, threads=threads)
    identity = identify(teacher, student, names, samples, labels, augmentation, settings, threads)
    parts = split(count, settings.held_out, settings.seed, multiple=fixed or 1)
    held_out = _held_out(teacher, samples, labels, parts.held_out, tuple(kinds), threads)
    objective = Objective(
        kinds=kinds,
        temperature=settings.temperature,
        labelled=labelled,
        label_weight=settings.label_weight,
        pairs=pairs,
        feature_weight=settings.feature_weight,
        variances=variances(ask(held_out[:_PROBED].inputs)),
    )
    maker = BatchMaker(
        inputs={name: array[parts.training] for name, array in samples.items()},
        labels=None if labels is None else labels[parts.training],
        answers=ask,
        augmentation=augmentation,
        mixing=settings.mixing,
    )
    heard = listeners or Listeners()
    lessons = Lessons(
        source=_source(maker, settings, folder / identity.answers, heard),
        count=len(maker),
        batch=fixed or min(settings.batch, len(maker)),
        held_out=held_out,
        judged_at_once=fixed or _JUDGED_AT_ONCE,
    )
    with repeatable(threads):
        module = OnnxModule(
            student,
            batch_norm="train" if settings.batch_norm == "train" else "frozen",
            check=held_out[: fixed or 1].inputs,
            outputs=objective.wanted,
        )
        trainer = Trainer(
            module,
            objective,
            lessons,
            settings,
            folder / identity.training / _STATE,
            heard.training,
        )
        ledger = trainer.run()
        module.load_state_dict(ledger.best)
        trained = module.to_onnx()
    return _finished(student, trained, objective, held_out, ledger, settings, threads)


def _pairs(teacher: ir.Model, student: ir.Model, settings: DistillSettings) -> tuple[Pair, ...]:
    if not settings.feature_weight:
        return ()
    if settings.features is None:
        return find_pairs(teacher, student)
    return check_pairs(teacher, student, settings.features)


def _held_out(
    teacher: ir.Model,
    samples: Mapping[str, Array],
    labels: Array | None,
    chosen: Array,
    outputs: tuple[str, ...],
    threads: int,
) -> Batch:
    inputs = {name: array[chosen] for name, array in samples.items()}
    answers = Answers(teacher, outputs, threads=threads)(inputs)
    return Batch(inputs, answers, None if labels is None else MixedLabels.pure(labels[chosen]))


def _source(
    maker: BatchMaker, settings: DistillSettings, folder: Path, heard: Listeners
) -> BatchSource:
    """Stored batches, where the same come again and there is room for them; else fresh ones."""
    views = 1 if maker.is_plain else settings.views
    probe = np.arange(min(_PROBED, len(maker)))
    probed = maker.make(probe, view_rng(0, 0, settings.seed))
    stored_bytes = views * bytes_of(probed) * len(maker) / len(probe)
    if not views or stored_bytes > settings.cache_limit_bytes:
        return FreshBatches(maker, settings.seed)
    return StoredBatches(maker, folder, views=views, seed=settings.seed, answering=heard.answering)


def _finished(
    student: ir.Model,
    trained: ir.Model,
    objective: Objective,
    held_out: Batch,
    ledger: Ledger,
    settings: DistillSettings,
    threads: int,
) -> tuple[ir.Model, TransformReport]:
    """What is written, judged as it will be run: by ONNX Runtime."""
    names = tuple(objective.kinds)
    old = Answers(student, names, threads=threads)(held_out.inputs)
    new = Answers(trained, names, threads=threads)(held_out.inputs)
    before, after = (quality(objective, made, held_out) for made in (old, new))
    changed = after.loss < before.loss
    result, after = (trained, after) if changed else (student.clone(), before)
    return result, TransformReport(
        transform="distill",
        changed=changed,
        before=model_cost(student),
        after=model_cost(result),
        max_relative_difference=relative_difference(old, new) if changed else 0.0,
        steps=(trained_step(ledger, before, after, len(held_out), settings),),
        skipped=tuple(left_out(ledger, objective.pairs, settings)),
    )
