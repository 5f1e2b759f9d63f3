"""Every loss is 0 where student and teacher agree, positive elsewhere, and what its source says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, rel_entr, softmax

from trimton.transforms.distill.kinds import KINDS
from trimton.transforms.distill.losses import OUTPUT_LOSSES, feature_error, label_loss
from trimton.transforms.distill.mixing import MixedLabels


def outputs(kind: str, seed: int) -> torch.Tensor:
    scores = np.random.default_rng(seed).standard_normal((5, 3, 4))
    made = {"probabilities": softmax(scores, axis=-1), "chances": 1 / (1 + np.exp(-scores))}
    return torch.from_numpy(made.get(kind, scores))


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(seed=st.integers(0, 1000), temperature=st.floats(0.5, 8), variance=st.floats(0.1, 10))
def test_a_loss_is_least_where_both_agree(
    kind: str, seed: int, temperature: float, variance: float
) -> None:
    teacher, student = outputs(kind, seed), outputs(kind, seed + 1)
    loss = OUTPUT_LOSSES[kind]

    assert float(loss(teacher, teacher, temperature, variance)) == pytest.approx(0, abs=1e-6)
    assert float(loss(student, teacher, temperature, variance)) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    student = outputs(kind, 1).requires_grad_()
    teacher = outputs(kind, 2)

    assert torch.autograd.gradcheck(
        lambda made: OUTPUT_LOSSES[kind](made, teacher, 2.0, 1.5), (student,)
    )


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_classes_are_compared_by_the_divergence_of_softened_probabilities(kind: str) -> None:
    student, teacher = outputs(kind, 1), outputs(kind, 2)
    scores = [s.numpy() if kind == "logits" else np.log(s.numpy()) for s in (student, teacher)]
    ours, theirs = (softmax(s / 3, axis=-1) for s in scores)
    expected = 9 * rel_entr(theirs, ours).sum(-1).mean()

    assert float(OUTPUT_LOSSES[kind](student, teacher, 3.0, 1.0)) == pytest.approx(expected)


def test_outliers_count_less_for_robust_values() -> None:
    teacher, student = torch.zeros(100, 1), torch.zeros(100, 1)
    student[0] = 50.0
    squared = OUTPUT_LOSSES["values"](student, teacher, 1.0, 1.0)
    robust = OUTPUT_LOSSES["robust-values"](student, teacher, 1.0, 1.0)

    assert float(squared) == pytest.approx(25)
    assert float(robust) == pytest.approx(2 * (50 - 0.5) / 100)


def test_the_length_of_an_embedding_does_not_count() -> None:
    teacher = outputs("direction", 1)

    assert float(OUTPUT_LOSSES["direction"](3 * teacher, teacher, 1.0, 1.0)) == pytest.approx(0)


def test_mixed_labels_count_by_their_shares() -> None:
    scores = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    labels = MixedLabels(np.array([0, 1]), np.array([2, 1]), np.array([0.75, 1.0], np.float32))
    logs = log_softmax(scores, axis=-1)
    expected = -(0.75 * logs[0, 0] + 0.25 * logs[0, 2] + logs[1, 1]) / 2

    assert float(label_loss(torch.from_numpy(scores), labels, "logits")) == pytest.approx(expected)


def maps(channels: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((40, channels, 3, 3)))


def test_features_of_another_width_are_compared_through_the_best_linear_map() -> None:
    student, others = maps(4, 1), maps(9, 2)
    mixed = torch.einsum("nchw,kc->nkhw", student, torch.randn(9, 4, dtype=torch.float64)) + 5
    variance = float(mixed.var(correction=0))
    rows, wanted = (t.movedim(1, -1).flatten(0, 2).numpy() for t in (student, others))
    padded = np.column_stack([rows, np.ones(len(rows))])
    left = wanted - padded @ np.linalg.lstsq(padded, wanted, rcond=None)[0]

    assert float(feature_error(student, mixed, variance)) < 1e-5
    assert float(feature_error(student, others, 1.0)) == pytest.approx((left**2).mean(), rel=1e-3)


def test_features_of_one_width_are_compared_as_they_are() -> None:
    assert float(feature_error(maps(4, 1), maps(4, 2), 1.0)) > 1.5


def test_the_gradient_through_the_best_map_is_that_of_finite_differences() -> None:
    student, teacher = maps(4, 1)[:3], maps(6, 2)[:3]
    change, step = maps(4, 3)[:3], 1e-5
    student.requires_grad_()
    feature_error(student, teacher, 1.0).backward()
    slope = float((student.grad * change).sum())
    with torch.no_grad():
        ends = [float(feature_error(student + s * change, teacher, 1.0)) for s in (step, -step)]

    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=0.02)
