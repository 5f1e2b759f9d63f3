"""What a training is known by: equal only where the outcome is, so that it can be gone on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import Field, asdict, dataclass, fields
from importlib import metadata

import numpy as np
import onnx_ir as ir

from trimton.transforms.distill.augment import Augmentation, augmented, inputs_digest
from trimton.transforms.distill.settings import COUNTS_WHERE_USED, DistillSettings
from trimton.transforms.graph.digest import model_digest
from trimton.transforms.graph.edit import Array

_PROBED = 64
_DIGITS = 16
_VERSIONS = ("numpy", "onnxruntime", "torch", "trimton")
# The settings that the teacher's answers, and the samples that they answer, depend on.
_OF_ANSWERS = ("seed", "held_out", "mixing")


@dataclass(frozen=True)
class Identity:
    """Names of folders: ``answers`` for those of the teacher, ``training`` for the state."""

    answers: str
    training: str


def identify(
    teacher: ir.Model,
    student: ir.Model,
    names: Sequence[str],
    samples: Mapping[str, Array],
    labels: Array | None,
    augmentation: Augmentation | None,
    settings: DistillSettings,
    threads: int,
) -> Identity:
    """The identity of a training; an augmentation is known by what it makes of some samples."""
    some = {name: array[:_PROBED] for name, array in samples.items()}
    if augmentation is not None:
        some = augmented(some, augmentation, np.random.default_rng(settings.seed))
    versions = {name: metadata.version(name) for name in _VERSIONS}
    answers = {
        "teacher": model_digest(teacher),
        "names": list(names),
        "samples": inputs_digest(samples, labels),
        "augmented": inputs_digest(some),
        "versions": versions,
        **{name: getattr(settings, name) for name in _OF_ANSWERS},
    }
    decisive = {f.name for f in fields(settings) if f.compare and _counts(f, settings)}
    training = {
        "answers": answers,
        "student": model_digest(student),
        "settings": {k: v for k, v in asdict(settings).items() if k in decisive},
        "threads": threads,
    }
    return Identity(f"answers-{_key(answers)}", f"training-{_key(training)}")


def _counts(one: Field[object], settings: DistillSettings) -> bool:
    return one.metadata != COUNTS_WHERE_USED or getattr(settings, one.name) != one.default


def _key(parts: Mapping[str, object]) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
