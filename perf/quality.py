"""How good a variant's answers are, and how close to the baseline's.

Each metric is a function of one Answers and one row of QUALITY_METRICS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import log10
from typing import Any

import numpy as np
import numpy.typing as npt

from trimton.core.errors import InputError, TransformError
from trimton.perf.results import Interval, QualitySummary
from trimton.perf.stats.proportions import paired_difference, share
from trimton.perf.targets.tensors import Array


@dataclass(frozen=True)
class Answers:
    """The outputs of baseline and variant for the same samples (first axis), by output name.

    ``classes`` names the output whose largest value is the predicted class; ``labels`` int64 [N].
    """

    baseline: Mapping[str, Array]
    variant: Mapping[str, Array]
    classes: str
    labels: Array | None

    @cached_property
    def baseline_top1(self) -> npt.NDArray[np.int64]:
        """Predicted class of the baseline, [N]."""
        return _top1(self.baseline[self.classes])

    @cached_property
    def variant_top1(self) -> npt.NDArray[np.int64]:
        """Predicted class of the variant, [N]."""
        return _top1(self.variant[self.classes])

    @property
    def samples(self) -> int:
        """The number of samples, N."""
        return len(self.baseline[self.classes])


def accuracy(answers: Answers) -> Interval | None:
    """Top-1 accuracy of the variant."""
    if answers.labels is None:
        return None
    right = answers.variant_top1 == answers.labels
    return share(int(right.sum()), answers.samples)


def accuracy_drop(answers: Answers) -> Interval | None:
    """Top-1 accuracy of the baseline minus the variant's, over the same samples."""
    if answers.labels is None:
        return None
    before = answers.baseline_top1 == answers.labels
    after = answers.variant_top1 == answers.labels
    return paired_difference(
        int((before & ~after).sum()), int((after & ~before).sum()), answers.samples
    )


def agreement(answers: Answers) -> Interval:
    """Share of samples for which both predict the same class."""
    same = answers.baseline_top1 == answers.variant_top1
    return share(int(same.sum()), answers.samples)


def sqnr_db(answers: Answers) -> float | None:
    """``10 log10(sum of baseline**2 / sum of (variant - baseline)**2)``, None if identical.

    Over all floating-point outputs.
    """
    signal = noise = 0.0
    for before, after in _float_pairs(answers):
        signal += float(np.square(before).sum())
        noise += float(np.square(after - before).sum())
    if noise == 0:
        return None
    return 10 * log10(max(signal, np.finfo(np.float64).tiny) / noise)


def largest_difference(answers: Answers) -> float:
    """The largest ``|variant - baseline|`` over all floating-point outputs."""
    return max(
        (float(np.abs(after - before).max()) for before, after in _float_pairs(answers)),
        default=0.0,
    )


# Field of QualitySummary -> function.
QUALITY_METRICS: Mapping[str, Callable[[Answers], Any]] = {
    "accuracy": accuracy,
    "accuracy_drop": accuracy_drop,
    "agreement": agreement,
    "sqnr_db": sqnr_db,
    "largest_difference": largest_difference,
}


def measure_quality(
    variant_name: str,
    baseline: Mapping[str, Array],
    variant: Mapping[str, Array],
    labels: Array | None = None,
    *,
    classes: str | None = None,
) -> QualitySummary:
    """All QUALITY_METRICS of ``variant`` against ``baseline`` (outputs by name, first axis N).

    ``classes`` names the classification output; without it the model's only output, or its only
    floating-point output of shape [N, classes], is taken.

    Raises InputError when the outputs do not match in name or shape or the output is not clear,
    and TransformError when the variant answers NaN or Inf where the baseline does not.
    """
    _check(variant_name, baseline, variant, labels)
    answers = Answers(baseline, variant, classes or _classification_output(baseline), labels)
    if answers.classes not in baseline:
        raise InputError(
            f"the model has no output {answers.classes!r} (outputs: {', '.join(baseline)})."
        )
    values = {name: metric(answers) for name, metric in QUALITY_METRICS.items()}
    return QualitySummary(variant=variant_name, samples=answers.samples, **values)


def _classification_output(outputs: Mapping[str, Array]) -> str:
    if len(outputs) == 1:
        return next(iter(outputs))
    candidates = [n for n, array in outputs.items() if array.ndim == 2 and array.dtype.kind == "f"]
    if len(candidates) != 1:
        raise InputError(
            f"the model has the outputs {', '.join(outputs)}; "
            "name the one that holds the scores of the classes."
        )
    return candidates[0]


def _top1(scores: Array) -> npt.NDArray[np.int64]:
    flat = scores.reshape(len(scores), -1)
    if scores.dtype.kind in "iu" and flat.shape[1] == 1:  # the model ends in its own ArgMax
        return np.asarray(flat[:, 0], np.int64)
    return np.asarray(flat.argmax(axis=1), np.int64)


def _float_pairs(answers: Answers) -> list[tuple[Array, Array]]:
    """Baseline and variant as float64, without the places where both are not finite."""
    pairs = []
    for name, before in answers.baseline.items():
        if before.dtype.kind == "f":
            finite = np.isfinite(before)
            pairs.append(
                (
                    before[finite].astype(np.float64),
                    answers.variant[name][finite].astype(np.float64),
                )
            )
    return [pair for pair in pairs if pair[0].size]


def _check(
    variant_name: str,
    baseline: Mapping[str, Array],
    variant: Mapping[str, Array],
    labels: Array | None,
) -> None:
    if not baseline or baseline.keys() != variant.keys():
        raise InputError(
            f"variant {variant_name!r} has the outputs {', '.join(variant)}, "
            f"but the baseline has {', '.join(baseline)}."
        )
    for name, before in baseline.items():
        after = variant[name]
        if before.shape != after.shape:
            raise InputError(
                f"output {name!r} of variant {variant_name!r} has shape {after.shape}, "
                f"but the baseline's has {before.shape}."
            )
        if labels is not None and len(labels) != len(before):
            raise InputError(f"there are {len(labels)} labels for {len(before)} samples.")
        if before.dtype.kind == "f":
            broken = np.isfinite(before) & ~np.isfinite(after)
            if broken.any():
                samples = int(broken.reshape(len(broken), -1).any(axis=1).sum())
                raise TransformError(
                    f"variant {variant_name!r} answers NaN or Inf in output {name!r} for "
                    f"{samples} of {len(before)} samples where the baseline does not."
                )
