"""Allocation: how many sets each group keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np

from trimton.transforms.graph.edit import Array
from trimton.transforms.prune.groups import Group


@dataclass(frozen=True)
class Request:
    """What was asked of one group, and what it gets: numbers of sets kept, and why they differ."""

    wanted: int
    kept: int
    why: str | None = None


# Groups and the scores of their sets -> how many sets each would keep, were all counts possible.
Allocation = Callable[[Sequence[Group], Sequence[Array], float], Sequence[int]]


def uniform(groups: Sequence[Group], scores: Sequence[Array], ratio: float) -> Sequence[int]:
    """The same share of every group goes."""
    return [len(group.sets) - round(ratio * len(group.sets)) for group in groups]


def global_(groups: Sequence[Group], scores: Sequence[Array], ratio: float) -> Sequence[int]:
    """The least important channels of the model go, whichever group they are in."""
    if not groups:
        return []
    flat = np.concatenate(list(scores))
    widths = np.repeat([group.width for group in groups], [len(group.sets) for group in groups])
    owner = np.repeat(np.arange(len(groups)), [len(group.sets) for group in groups])
    order = np.argsort(flat, kind="stable")
    gone = order[np.cumsum(widths[order]) <= round(ratio * widths.sum())]
    lost = np.bincount(owner[gone], minlength=len(groups))
    return [len(group.sets) - int(lost[number]) for number, group in enumerate(groups)]


ALLOCATIONS: Mapping[str, Allocation] = {"uniform": uniform, "global": global_}


@dataclass(frozen=True)
class Limits:
    """Kept channels are a ``multiple`` of the kernels' block, and at least ``min_kept``."""

    multiple: int
    min_kept: int


def allocate(
    groups: Sequence[Group],
    scores: Sequence[Array],
    allocation: Allocation,
    ratio: float,
    limits: Limits,
) -> list[Request]:
    """How many sets each group keeps."""
    wanted = allocation(groups, scores, ratio)
    return [_possible(g, int(w), limits) for g, w in zip(groups, wanted, strict=True)]


def possible_counts(group: Group, limits: Limits) -> list[int]:
    """All numbers of sets that ``group`` may keep, ascending; the last is all of them."""
    size = len(group.sets)
    return sorted({_possible(group, wanted, limits).kept for wanted in range(1, size + 1)} | {size})


def _possible(group: Group, wanted: int, limits: Limits) -> Request:
    """The nearest count of whole blocks of channels, at least the minimum."""
    size = len(group.sets)
    step = limits.multiple // gcd(limits.multiple, group.width)
    blocks = max(1, int(wanted / step + 0.5)) * step
    lowest = min(size, -(-limits.min_kept // group.width))
    kept = min(size, max(blocks, -(-lowest // step) * step))
    if wanted < lowest:
        channels = lowest * group.width
        reason = f"at least {channels} of its channels must stay, and the ratio left fewer"
        return Request(wanted, kept, reason)
    if kept == size and wanted < size:
        reason = f"its {group.channels} channels are too few for blocks of {limits.multiple}"
        return Request(wanted, kept, reason)
    return Request(wanted, kept)
