"""Training batches: samples, augmented and mixed, with what the teacher answers to them.

Answers are stored where the same samples come again, and computed anew where augmentation makes
new ones in every epoch. A batch depends on the seed, the epoch and its number alone, so a
training that is resumed meets the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from trimton.transforms.distill.augment import Augmentation, augmented
from trimton.transforms.distill.mixing import MixedLabels, mix
from trimton.transforms.distill.split import order_of_view, view_rng
from trimton.transforms.distill.store import open_stored, write_stored
from trimton.transforms.graph.edit import Array

# Samples that are augmented and mixed at once for a stored view.
_PART = 256
# Names of arrays in a stored view; labels have none of their own in a model.
_INPUT, _ANSWER = "input ", "answer "
_LABELS = ("labels own", "labels other", "labels share")

# Called with how many samples of how many are answered.
Answering = Callable[[int, int], None]


@dataclass(frozen=True)
class Batch:
    """Inputs and answers by name, first axis = samples; labels where there are some."""

    inputs: Mapping[str, Array]
    answers: Mapping[str, Array]
    labels: MixedLabels | None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def __getitem__(self, chosen: slice) -> Batch:
        return Batch(
            {name: array[chosen] for name, array in self.inputs.items()},
            {name: array[chosen] for name, array in self.answers.items()},
            None if self.labels is None else self.labels[chosen],
        )


class BatchSource(Protocol):
    """Where training gets its batches from."""

    def batch(self, epoch: int, step: int, chosen: Array) -> Batch:
        """The samples ``chosen`` (indices) as they are in ``step`` of ``epoch``."""
        ...


@dataclass(frozen=True)
class BatchMaker:
    """Makes a batch of samples: ``inputs`` and ``labels`` are those that are trained on."""

    inputs: Mapping[str, Array]
    labels: Array | None
    answers: Callable[[Mapping[str, Array]], Mapping[str, Array]]
    augmentation: Augmentation | None
    mixing: float

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def is_plain(self) -> bool:
        """Whether samples stay as they are."""
        return self.augmentation is None and not self.mixing

    def make(self, chosen: Array, rng: np.random.Generator) -> Batch:
        """The samples ``chosen``, augmented and mixed by ``rng``, and the answers to them."""
        inputs: Mapping[str, Array] = {name: array[chosen] for name, array in self.inputs.items()}
        own = None if self.labels is None else self.labels[chosen]
        labels = None if own is None else MixedLabels.pure(own)
        if self.augmentation is not None:
            inputs = augmented(inputs, self.augmentation, rng)
        if self.mixing:
            inputs, labels = mix(inputs, own, self.mixing, rng)
        return Batch(inputs, self.answers(inputs), labels)


@dataclass(frozen=True)
class FreshBatches:
    """New augmentation in every epoch, answered by the teacher as it comes."""

    maker: BatchMaker
    seed: int

    def batch(self, epoch: int, step: int, chosen: Array) -> Batch:
        """See BatchSource."""
        return self.maker.make(chosen, view_rng(epoch, step, self.seed))


class StoredBatches:
    """``views`` augmentations of all samples, in turn, stored in ``folder`` when first used."""

    def __init__(
        self, maker: BatchMaker, folder: Path, *, views: int, seed: int, answering: Answering
    ) -> None:
        self._maker, self._folder = maker, folder
        self._views, self._seed = views, seed
        self._answering = answering
        self._open: tuple[int, Mapping[str, Array]] | None = None

    def batch(self, epoch: int, step: int, chosen: Array) -> Batch:
        """See BatchSource."""
        view = epoch % self._views
        if self._open is None or self._open[0] != view:
            self._open = (view, self._stored(view))
        return _batch_of({name: array[chosen] for name, array in self._open[1].items()})

    def _stored(self, view: int) -> Mapping[str, Array]:
        folder = self._folder / f"view-{view}"
        stored = open_stored(folder)
        if stored is None:
            count = len(self._maker)
            order = order_of_view(view, count, self._seed)
            parts = (
                _arrays_of(
                    self._maker.make(
                        order[start : start + _PART], view_rng(view, start, self._seed)
                    )
                )
                for start in range(0, count, _PART)
            )
            write_stored(folder, parts, count, self._answering)
            stored = open_stored(folder)
        assert stored is not None
        return stored


def bytes_of(batch: Batch) -> int:
    """What storing ``batch`` takes."""
    return sum(array.nbytes for array in _arrays_of(batch).values())


def _arrays_of(batch: Batch) -> dict[str, Array]:
    labels = batch.labels
    own = () if labels is None else (labels.own, labels.other, labels.share_of_own)
    return {
        **{_INPUT + name: array for name, array in batch.inputs.items()},
        **{_ANSWER + name: array for name, array in batch.answers.items()},
        **dict(zip(_LABELS, own, strict=False)),
    }


def _batch_of(arrays: Mapping[str, Array]) -> Batch:
    def named(prefix: str) -> dict[str, Array]:
        return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}

    own = [arrays[name] for name in _LABELS if name in arrays]
    return Batch(named(_INPUT), named(_ANSWER), MixedLabels(*own) if own else None)
