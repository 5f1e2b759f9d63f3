"""Which samples judge, which are trained on, and in which order: functions of the seed alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimton.transforms.graph.edit import Array

MOST_HELD_OUT = 5000
# Independent streams of random numbers from one seed.
_SPLIT, _ORDER, _VIEW, _VIEW_ORDER = range(4)


@dataclass(frozen=True)
class Split:
    """Indices of samples, int64, sorted; the two do not overlap."""

    training: Array
    held_out: Array


def split(count: int, held_out: float, seed: int, *, multiple: int = 1) -> Split:
    """Put the share ``held_out`` of ``count`` samples, at most 5,000, aside by chance.

    As many as make whole batches of ``multiple`` samples; both parts have one at least where
    ``count`` is twice that many.
    """
    wanted = min(MOST_HELD_OUT, round(held_out * count))
    aside = max(1, min(wanted, count - multiple) // multiple) * multiple
    order = np.random.default_rng((seed, _SPLIT)).permutation(count)
    return Split(np.sort(order[aside:]), np.sort(order[:aside]))


def order_of(epoch: int, count: int, seed: int) -> Array:
    """The order of ``count`` samples in ``epoch``."""
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(count)


def order_of_view(view: int, count: int, seed: int) -> Array:
    """The order in which ``count`` samples stand in a stored view.

    Parts of neighbours would be mixed with samples of their own class, where data is sorted.
    """
    return np.random.default_rng((seed, _VIEW_ORDER, view)).permutation(count)


def view_rng(view: int, part: int, seed: int) -> np.random.Generator:
    """The chance of augmentation in one part (a batch) of a view."""
    return np.random.default_rng((seed, _VIEW, view, part))
