"""What training makes small: the distance to the teacher, to labels, and inside the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trimton.transforms.distill.batches import Batch
from trimton.transforms.distill.kinds import CLASSES
from trimton.transforms.distill.losses import OUTPUT_LOSSES, feature_error, label_loss
from trimton.transforms.distill.mixing import MixedLabels
from trimton.transforms.distill.pairs import Pair
from trimton.transforms.graph.edit import Array

_SMALLEST_VARIANCE = 1e-12


@dataclass(frozen=True)
class Objective:
    """The loss of a student, given what the teacher answers.

    ``kinds`` are those of the outputs, by name; ``labelled`` is the output that labels belong to,
    with the weight ``label_weight``; ``pairs`` of values inside are matched with the weight
    ``feature_weight``. ``variances`` are those of the teacher's values, by name.
    """

    kinds: Mapping[str, str]
    temperature: float
    labelled: str | None
    label_weight: float
    pairs: Sequence[Pair]
    feature_weight: float
    variances: Mapping[str, float]

    @property
    def wanted(self) -> tuple[str, ...]:
        """The values of the student that training looks at."""
        return tuple(dict.fromkeys([*self.kinds, *(ours for _, ours in self.pairs)]))

    @property
    def wanted_of_teacher(self) -> tuple[str, ...]:
        """The values that the teacher is asked for."""
        return tuple(dict.fromkeys([*self.kinds, *(theirs for theirs, _ in self.pairs)]))

    def loss(
        self, made: Mapping[str, Tensor], answers: Mapping[str, Array], labels: MixedLabels | None
    ) -> Tensor:
        """The loss of outputs and values inside the student."""
        total = self.output_loss(made, answers, labels)
        if self.pairs:
            distances = [
                feature_error(made[ours].float(), _tensor(answers[theirs]), self.variances[theirs])
                for theirs, ours in self.pairs
            ]
            total = total + self.feature_weight * torch.stack(distances).mean()
        return total

    def output_loss(
        self, made: Mapping[str, Tensor], answers: Mapping[str, Array], labels: MixedLabels | None
    ) -> Tensor:
        """The loss of outputs alone, the mean over them."""
        distances = torch.stack(
            [
                OUTPUT_LOSSES[kind](
                    made[name].float(),
                    _tensor(answers[name]),
                    self.temperature,
                    self.variances[name],
                )
                for name, kind in self.kinds.items()
            ]
        ).mean()
        if self.labelled is None or labels is None:
            return distances
        hard = label_loss(made[self.labelled].float(), labels, self.kinds[self.labelled])
        return (1 - self.label_weight) * distances + self.label_weight * hard


@dataclass(frozen=True)
class Quality:
    """How good outputs are on held-out samples.

    ``loss`` is that of the outputs; ``agreement`` the share of places where the likeliest class
    is the teacher's, ``accuracy`` that where it is the label; None where there are none.
    """

    loss: float
    agreement: float | None
    accuracy: float | None


def quality(objective: Objective, made: Mapping[str, Array], batch: Batch) -> Quality:
    """The quality of the outputs ``made`` for ``batch``."""
    tensors = {name: _tensor(made[name]) for name in objective.kinds}
    loss = float(objective.output_loss(tensors, batch.answers, batch.labels))
    classes = [name for name, kind in objective.kinds.items() if kind in CLASSES]
    agreement = accuracy = None
    if classes:
        hits = [made[n].argmax(-1) == batch.answers[n].argmax(-1) for n in classes]
        agreement = float(np.mean([hit.mean() for hit in hits]))
    if objective.labelled is not None and batch.labels is not None:
        accuracy = float((made[objective.labelled].argmax(-1) == batch.labels.own).mean())
    return Quality(loss, agreement, accuracy)


def variances(answers: Mapping[str, Array]) -> dict[str, float]:
    """The variance of each value, never 0."""
    return {
        name: max(float(array.var(dtype=np.float64)), _SMALLEST_VARIANCE)
        for name, array in answers.items()
    }


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
