"""Training with group sparsity makes channels small, and their cut costs less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.distill.distilling import Listeners, distill
from trimton.transforms.distill.group_sparsity import weak_half
from trimton.transforms.distill.settings import DistillSettings
from trimton.transforms.distill.trainer import TrainingProgress
from trimton.transforms.graph.digest import model_digest
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.prune import PruneSettings, prune

ModelMaker = Callable[..., ir.Model]
NetworkMaker = Callable[..., ir.Model]
Samples = dict[str, np.ndarray]

PLAIN = DistillSettings(epochs=12, batch=32, learning_rate=0.01, averaging=0.9, threads=1, seed=3)
SPARSE = replace(PLAIN, group_sparsity=0.4)
CUT = PruneSettings(ratio=0.5, multiple=1)


def moved_by_the_cut(model: ir.Model, samples: Samples) -> float:
    """How far the outputs move when the weaker half goes, as a share of their size."""
    cut, _ = prune(model, CUT)
    old, new = (run(open_session(each), samples)["logits"] for each in (model, cut))
    return float(np.abs(new - old).mean() / np.abs(old).mean())


def test_the_weaker_half_becomes_small_and_its_cut_moves_outputs_less(
    teacher: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    sparse, report = distill(teacher, teacher, samples, SPARSE, tmp_path)
    found = next(step for step in report.steps if step.name == "group-sparsity").detail

    assert report.changed
    assert found["weak_half"]["before"] == pytest.approx(weak_half(teacher))
    assert found["weak_half"]["after"] == pytest.approx(weak_half(sparse))
    assert weak_half(sparse) < 0.5 * weak_half(teacher)
    assert moved_by_the_cut(sparse, samples) < 0.5 * moved_by_the_cut(teacher, samples)


def test_a_student_that_is_cut_after_it_comes_closer_to_its_teacher(
    teacher: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    mild = replace(SPARSE, group_sparsity=0.2)
    sparse, _ = distill(teacher, teacher, samples, mild, tmp_path)

    def loss_when_cut_and_trained(model: ir.Model) -> float:
        student, _ = prune(model, CUT)
        _, report = distill(teacher, student, samples, PLAIN, tmp_path)
        return float(report.steps[0].detail["loss"]["after"])

    assert loss_when_cut_and_trained(sparse) < loss_when_cut_and_trained(teacher)


def test_more_of_it_leaves_less(teacher: ir.Model, samples: Samples, tmp_path: Path) -> None:
    shares = [
        weak_half(
            distill(teacher, teacher, samples, replace(SPARSE, group_sparsity=w), tmp_path)[0]
        )
        for w in (0.1, 0.2, 0.4)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < shares[0]


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_killed_training_resumes_to_the_same_weights(
    teacher: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    settings = replace(SPARSE, epochs=3, checkpoint_every_s=0.0)
    whole, _ = distill(teacher, teacher, samples, settings, tmp_path / "a")

    def kill(now: TrainingProgress) -> None:
        if now.done == 20:
            raise Killed

    with pytest.raises(Killed):
        distill(
            teacher, teacher, samples, settings, tmp_path / "b", listeners=Listeners(training=kill)
        )
    resumed, _ = distill(teacher, teacher, samples, settings, tmp_path / "b")

    assert model_digest(resumed) == model_digest(whole)


def test_without_it_trainings_keep_their_identity(
    teacher: ir.Model, student: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    for settings in (PLAIN, replace(PLAIN, group_sparsity=0.0), replace(PLAIN, group_sparsity=0.1)):
        distill(teacher, student, samples, replace(settings, epochs=1), tmp_path)

    assert len(list(tmp_path.glob("training-*"))) == 2


def test_patience_and_group_sparsity_do_not_go_together() -> None:
    with pytest.raises(InputError, match="patience goes by the held-out loss"):
        replace(SPARSE, patience=3)


def test_a_model_without_channels_to_remove_is_refused(
    make_model: ModelMaker, tmp_path: Path
) -> None:
    model = make_model(
        "g (float[N,6] x, float[6,4] w) => (float[N,4] logits) { logits = MatMul(x, w) }",
        w=np.ones((6, 4), np.float32),
    )
    samples = {"x": np.random.default_rng(0).standard_normal((100, 6)).astype(np.float32)}
    with pytest.raises(UnsupportedModelError, match="no channels to be removed"):
        distill(model, model, samples, SPARSE, tmp_path)
