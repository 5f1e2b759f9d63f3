"""Allocation by cost: the counts that lose least for a given cost.

From the whole model on, the removal of the least error for each unit of cost is made, until the
target is reached; then whatever fits below the target is given back, where it helps most. What
was removed early may have been a bargain only then: so each group is made whole once more, and
stays so where the others can make up for it with less error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trimton.core.errors import InputError
from trimton.transforms.prune.allocation import Limits, possible_counts
from trimton.transforms.prune.cost_model import CostModel
from trimton.transforms.prune.groups import Group, Prunable
from trimton.transforms.prune.refit.elimination import Elimination


@dataclass(frozen=True)
class Problem:
    """What each group of ``found`` loses by its counts (None: unknown, so it stays whole)."""

    found: Prunable
    losses: Sequence[Elimination | None]
    limits: Limits

    @property
    def groups(self) -> Sequence[Group]:
        """The groups to choose counts for."""
        return self.found.groups

    def whole(self) -> list[int]:
        """Every group keeps all its sets."""
        return [len(group.sets) for group in self.groups]

    def smallest(self) -> list[int]:
        """Every group keeps as few as it may."""
        return [self.counts(number)[0] for number in range(len(self.groups))]

    def about(self, share: float) -> list[int]:
        """Every group keeps about this share of its sets."""
        return [
            min(self.counts(number), key=lambda count: abs(count - share * len(group.sets)))
            for number, group in enumerate(self.groups)
        ]

    def loss(self, number: int, kept: int) -> float:
        """The error of the readers of one group."""
        elimination = self.losses[number]
        gone = len(self.groups[number].sets) - kept
        return 0.0 if elimination is None or not gone else float(elimination.errors[gone - 1])

    def total_loss(self, kept: Sequence[int]) -> float:
        """The error of the readers of all groups."""
        return sum(self.loss(number, count) for number, count in enumerate(kept))

    def counts(self, number: int) -> Sequence[int]:
        """The counts that one group may keep, ascending."""
        if self.losses[number] is None:
            return [len(self.groups[number].sets)]
        return possible_counts(self.groups[number], self.limits)


def least_loss(problem: Problem, model: CostModel, target: float) -> list[int]:
    """How many sets each group keeps for a cost of at most ``target``.

    Raises InputError where even the smallest counts cost more.
    """
    whole = problem.whole()
    kept = _fitting(problem, model, target, whole)
    if kept is None:
        least = model.cost(problem.groups, problem.smallest())
        share = least / model.cost(problem.groups, whole)
        raise InputError(
            f"the target is out of reach: the least that the model can cost is {share:.0%} of "
            f"what it costs now."
        )
    for number, size in enumerate(whole):
        if kept[number] == size:
            continue
        start = [*kept[:number], size, *kept[number + 1 :]]
        other = _fitting(problem, model, target, start, left_whole=number)
        if other is not None and problem.total_loss(other) < problem.total_loss(kept):
            kept = other
    return kept


def _fitting(
    problem: Problem,
    model: CostModel,
    target: float,
    start: Sequence[int],
    left_whole: int | None = None,
) -> list[int] | None:
    """``start`` with removals until it costs at most ``target``, and what fits given back.

    None where the target is out of reach; the group ``left_whole`` stays as it is.
    """
    kept = list(start)
    while model.cost(problem.groups, kept) > target:
        steps = [
            step
            for step in _steps(problem, model, kept, down=True)
            if step.saved > 0 and step.number != left_whole
        ]
        if not steps:
            return None
        best = min(steps, key=lambda step: step.lost / step.saved)
        kept[best.number] = best.kept
    while True:
        room = target - model.cost(problem.groups, kept)
        steps = [
            s for s in _steps(problem, model, kept, down=False) if -s.saved <= room and s.lost < 0
        ]
        if not steps:
            return kept
        best = min(steps, key=lambda step: step.lost)
        kept[best.number] = best.kept


@dataclass(frozen=True)
class _Step:
    """Another count for one group, the cost that it saves and the error that it adds."""

    number: int
    kept: int
    saved: float
    lost: float


def _steps(
    problem: Problem, model: CostModel, kept: Sequence[int], *, down: bool
) -> Iterator[_Step]:
    now = model.cost(problem.groups, kept)
    for number, own in enumerate(kept):
        for count in problem.counts(number):
            if count == own or (count < own) != down:
                continue
            changed = [*kept[:number], count, *kept[number + 1 :]]
            lost = problem.loss(number, count) - problem.loss(number, own)
            yield _Step(number, count, now - model.cost(problem.groups, changed), lost)
