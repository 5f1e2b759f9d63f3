"""How far a student's output is from the teacher's, as a number with a gradient, by kind.

Every function takes what the student and the teacher make, tensors of one shape [N, ...], and
gives the mean over everything but the axis that its kind goes along: the steps of a sequence and
the places of a map count alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from trimton.transforms.distill.kinds import (
    CHANCES,
    DIRECTION,
    LOGITS,
    PROBABILITIES,
    ROBUST_VALUES,
    VALUES,
)
from trimton.transforms.distill.mixing import MixedLabels

_SMALLEST = 1e-7
# Of the mean square of the channels: keeps a map from fitting a small batch to the last digit.
_RIDGE = 1e-3


def divergence_of_logits(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of softened classes, in nats (Hinton et al. 2015).

    The factor keeps the size of gradients whatever the temperature.
    """
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher / temperature, dim=-1)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=-1)
    return temperature**2 * divergence.mean()


def divergence_of_probabilities(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The same for outputs of a softmax: their logarithms are logits."""
    return divergence_of_logits(_log(student), _log(teacher), temperature)


def divergence_of_chances(student: Tensor, teacher: Tensor) -> Tensor:
    """KL of two Bernoulli distributions in every place, in nats."""
    p, q = _inside(teacher), _inside(student)
    return (p * (p.log() - q.log()) + (1 - p) * ((1 - p).log() - (1 - q).log())).mean()


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos of the angle between vectors along the last axis."""
    return (1 - F.cosine_similarity(student, teacher, dim=-1, eps=_SMALLEST)).mean()


def squared_error(student: Tensor, teacher: Tensor, variance: float) -> Tensor:
    """The mean squared error as a share of ``variance``."""
    return F.mse_loss(student, teacher) / variance


def feature_error(student: Tensor, teacher: Tensor, variance: float) -> Tensor:
    """squared_error, where need be through the best linear map from ``student`` to ``teacher``.

    Tensors may differ in the size of one axis behind the first, that of the channels. Then the
    map (with a constant) that explains most of this batch stands between them, as the learned 1x1
    convolution of Romero et al. 2015 (arXiv:1412.6550) does; in closed form it is the best one at
    every step, and has no weights to be kept. At the least error it needs no gradient itself.
    """
    if student.shape == teacher.shape:
        return squared_error(student, teacher, variance)
    (axis,) = (
        i
        for i, sizes in enumerate(zip(student.shape, teacher.shape, strict=True))
        if len({*sizes}) > 1
    )
    own, wanted = (_centred_rows(tensor, axis) for tensor in (student, teacher))
    with torch.no_grad():
        gram = own.T @ own
        gram.diagonal().add_(_RIDGE * gram.diagonal().mean().clamp_min(_SMALLEST))
        best = torch.linalg.solve(gram, own.T @ wanted)
    return squared_error(own @ best, wanted, variance)


def huber_error(student: Tensor, teacher: Tensor, variance: float) -> Tensor:
    """Huber's error: squared up to one standard deviation, then linear (Huber 1964)."""
    deviation = variance**0.5
    return 2 * F.huber_loss(student / deviation, teacher / deviation)


# kind -> loss(student, teacher, temperature, variance of the teacher's output)
OUTPUT_LOSSES: Mapping[str, Callable[[Tensor, Tensor, float, float], Tensor]] = {
    LOGITS: lambda s, t, temperature, _: divergence_of_logits(s, t, temperature),
    PROBABILITIES: lambda s, t, temperature, _: divergence_of_probabilities(s, t, temperature),
    CHANCES: lambda s, t, *_: divergence_of_chances(s, t),
    DIRECTION: lambda s, t, *_: cosine_distance(s, t),
    VALUES: lambda s, t, _, variance: squared_error(s, t, variance),
    ROBUST_VALUES: lambda s, t, _, variance: huber_error(s, t, variance),
}


def label_loss(student: Tensor, labels: MixedLabels, kind: str) -> Tensor:
    """Cross entropy in nats of classes [N, C], logits or probabilities, with mixed labels [N]."""
    log_classes = _log(student) if kind == PROBABILITIES else F.log_softmax(student, dim=-1)
    own = F.nll_loss(log_classes, torch.from_numpy(labels.own), reduction="none")
    other = F.nll_loss(log_classes, torch.from_numpy(labels.other), reduction="none")
    share = torch.from_numpy(labels.share_of_own)
    return (share * own + (1 - share) * other).mean()


def _centred_rows(tensor: Tensor, axis: int) -> Tensor:
    """[everything else, channels], each channel with the mean 0."""
    rows = tensor.movedim(axis, -1).flatten(0, -2)
    return rows - rows.mean(dim=0)


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(_SMALLEST).log()


def _inside(chances: Tensor) -> Tensor:
    return chances.clamp(_SMALLEST, 1 - _SMALLEST)
