"""A training that is interrupted goes on to the same bits, wherever it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import InputError
from trimton.transforms.distill.distilling import Listeners, distill
from trimton.transforms.distill.settings import DistillSettings
from trimton.transforms.distill.trainer import TrainingProgress
from trimton.transforms.graph.digest import model_digest

Samples = dict[str, np.ndarray]

SETTINGS = DistillSettings(epochs=3, batch=64, threads=1, mixing=0.3, seed=5)


class Killed(BaseException):
    """Stands for the end of the process."""


def killed_after(steps: int) -> Callable[[TrainingProgress], None]:
    def hear(now: TrainingProgress) -> None:
        if now.done == steps:
            raise Killed

    return hear


def jitter(batch: Samples, rng: np.random.Generator) -> Samples:
    return {"x": batch["x"] + 0.1 * rng.standard_normal(batch["x"].shape).astype(np.float32)}


@pytest.mark.parametrize("views", [0, 2])
@pytest.mark.parametrize("every_s", [0.0, 1e9])
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_killed_training_resumes_to_the_same_weights(
    teacher: ir.Model,
    student: ir.Model,
    samples: Samples,
    tmp_path: Path,
    views: int,
    every_s: float,
    optimiser: str,
) -> None:
    settings = replace(SETTINGS, views=views, checkpoint_every_s=every_s, optimiser=optimiser)
    whole, expected = distill(
        teacher, student, samples, settings, tmp_path / "a", augmentation=jitter
    )

    for steps in (3, 8, 9, 17):
        with pytest.raises(Killed):
            distill(
                teacher,
                student,
                samples,
                settings,
                tmp_path / "b",
                augmentation=jitter,
                listeners=Listeners(training=killed_after(steps)),
            )
    resumed, report = distill(
        teacher, student, samples, settings, tmp_path / "b", augmentation=jitter
    )

    assert expected.changed
    assert model_digest(resumed) == model_digest(whole)
    assert report.to_json() == expected.to_json()


def test_a_finished_training_is_not_repeated(
    teacher: ir.Model, student: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    first, _ = distill(teacher, student, samples, SETTINGS, tmp_path)
    steps: list[TrainingProgress] = []
    again, _ = distill(
        teacher, student, samples, SETTINGS, tmp_path, listeners=Listeners(training=steps.append)
    )

    assert steps == []
    assert model_digest(again) == model_digest(first)


@pytest.mark.parametrize(
    "change",
    [{"seed": 6}, {"epochs": 2}, {"temperature": 3.0}, {"averaging": 0.5}, {"weight_decay": 0.2}],
)
def test_another_training_does_not_go_on_from_this_one(
    teacher: ir.Model,
    student: ir.Model,
    samples: Samples,
    tmp_path: Path,
    change: dict[str, object],
) -> None:
    distill(teacher, student, samples, SETTINGS, tmp_path)
    other = replace(SETTINGS, **change)
    beside, _ = distill(teacher, student, samples, other, tmp_path)
    alone, _ = distill(teacher, student, samples, other, tmp_path / "alone")

    assert model_digest(beside) == model_digest(alone)


def test_another_augmentation_gets_other_answers(
    teacher: ir.Model, student: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, views=1)
    made = [
        distill(teacher, student, samples, settings, tmp_path, augmentation=function)[0]
        for function in (jitter, lambda batch, rng: {"x": -batch["x"]}, jitter)
    ]

    assert model_digest(made[0]) == model_digest(made[2]) != model_digest(made[1])


def test_a_state_that_is_damaged_is_named(
    teacher: ir.Model, student: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    distill(teacher, student, samples, SETTINGS, tmp_path)
    (state,) = tmp_path.glob("training-*/state.pt")
    state.write_bytes(state.read_bytes()[:1000])

    with pytest.raises(InputError, match=r"state\.pt: is no state of a training; remove it"):
        distill(teacher, student, samples, SETTINGS, tmp_path)
