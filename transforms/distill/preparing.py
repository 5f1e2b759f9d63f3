"""Everything that is settled before the first step: what is learnt, from what, judged by what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from trimton.transforms.distill.augment import Augmentation
from trimton.transforms.distill.batches import (
    Batch,
    BatchMaker,
    BatchSource,
    FreshBatches,
    StoredBatches,
    bytes_of,
)
from trimton.transforms.distill.identity import identify
from trimton.transforms.distill.interface import (
    check_mixing,
    check_models,
    check_samples,
    labelled_output,
)
from trimton.transforms.distill.kinds import output_kinds
from trimton.transforms.distill.mixing import MixedLabels
from trimton.transforms.distill.objective import Objective, variances
from trimton.transforms.distill.pairs import Pair, check_pairs, find_pairs
from trimton.transforms.distill.runtime import threads_or_cores
from trimton.transforms.distill.settings import DistillSettings
from trimton.transforms.distill.split import split, view_rng
from trimton.transforms.distill.teacher import Answers, fixed_batch
from trimton.transforms.distill.trainer import Lessons
from trimton.transforms.graph.edit import Array

_JUDGED_AT_ONCE = 256
# Samples that variances of the teacher's values, and sizes of stored batches, are taken from.
_PROBED = 256
_STATE = "state.pt"


@dataclass(frozen=True)
class Course:
    """One training: its objective, what is learnt from, and where its state is kept.

    ``untrained`` is what the student answers to the held-out samples beforehand.
    """

    objective: Objective
    lessons: Lessons
    untrained: Mapping[str, Array]
    threads: int
    state: Path


def prepare(
    teacher: ir.Model,
    student: ir.Model,
    samples: Mapping[str, Array],
    labels: Array | None,
    augmentation: Augmentation | None,
    settings: DistillSettings,
    folder: Path,
    answering: Callable[[int, int], None],
) -> Course:
    """The course of a training; raises as distill does where something does not fit."""
    fixed = fixed_batch(student)
    check_models(teacher, student)
    count = check_samples(samples, labels, fixed)
    check_mixing(samples, settings.mixing)
    objective = _objective(teacher, student, labels, settings)
    threads = threads_or_cores(settings.threads)
    names = objective.wanted_of_teacher
    ask = Answers(teacher, names, threads=threads)
    identity = identify(teacher, student, names, samples, labels, augmentation, settings, threads)
    parts = split(count, settings.held_out, settings.seed, multiple=fixed or 1)
    held_out = _held_out(
        Answers(teacher, objective.kinds, threads=threads), samples, labels, parts.held_out
    )
    maker = BatchMaker(
        inputs={name: array[parts.training] for name, array in samples.items()},
        labels=None if labels is None else labels[parts.training],
        answers=ask,
        augmentation=augmentation,
        mixing=settings.mixing,
    )
    lessons = Lessons(
        source=_source(maker, settings, folder / identity.answers, answering),
        count=len(maker),
        batch=fixed or min(settings.batch, len(maker)),
        held_out=held_out,
        judged_at_once=fixed or _JUDGED_AT_ONCE,
        smallest=fixed or 1,
    )
    return Course(
        objective=replace(objective, variances=variances(ask(held_out[:_PROBED].inputs))),
        lessons=lessons,
        # A student that the samples do not suit is refused now, and not after a first epoch.
        untrained=Answers(student, objective.kinds, threads=threads)(held_out.inputs),
        threads=threads,
        state=folder / identity.training / _STATE,
    )


def _objective(
    teacher: ir.Model, student: ir.Model, labels: Array | None, settings: DistillSettings
) -> Objective:
    """What the graphs and the settings say of it; variances are not known yet."""
    classes = None if labels is None else int(labels.max(initial=0)) + 1
    kinds = output_kinds(teacher, dict(settings.losses), classes=classes)
    return Objective(
        kinds=kinds,
        temperature=settings.temperature,
        labelled=labelled_output(teacher, kinds, labels),
        label_weight=settings.label_weight,
        pairs=_pairs(teacher, student, settings),
        feature_weight=settings.feature_weight,
        variances={},
    )


def _pairs(teacher: ir.Model, student: ir.Model, settings: DistillSettings) -> tuple[Pair, ...]:
    if not settings.feature_weight:
        return ()
    if settings.features is None:
        return find_pairs(teacher, student)
    return check_pairs(teacher, student, settings.features)


def _held_out(
    ask: Answers, samples: Mapping[str, Array], labels: Array | None, chosen: Array
) -> Batch:
    inputs = {name: array[chosen] for name, array in samples.items()}
    own = None if labels is None else MixedLabels.pure(labels[chosen])
    return Batch(inputs, ask(inputs), own)


def _source(
    maker: BatchMaker,
    settings: DistillSettings,
    folder: Path,
    answering: Callable[[int, int], None],
) -> BatchSource:
    """Stored batches, where the same come again and there is room for them; else fresh ones."""
    views = 1 if maker.is_plain else settings.views
    probe = np.arange(min(_PROBED, len(maker)))
    probed = maker.make(probe, view_rng(0, 0, settings.seed))
    stored_bytes = views * bytes_of(probed) * len(maker) / len(probe)
    if not views or stored_bytes > settings.cache_limit_bytes:
        return FreshBatches(maker, settings.seed)
    return StoredBatches(maker, folder, views=views, seed=settings.seed, answering=answering)
