"""Group sparsity: training that makes channels removable before they are cut.

The sets of tied indices that pruning removes as a whole are what is penalised: their Euclidean
norms, as in the group lasso (Yuan and Lin 2006), each divided by what it is just now (reweighted,
Candes et al. 2008, arXiv:0711.1612), so that small sets are shortened more, and stop at 0, while
those that matter keep their weights. The plain lasso, tried beside it, harms the outputs more for
as much sparsity. The penalty grows while training goes on (Wang et al. 2021, arXiv:2012.09243).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.distill.interpreter import OnnxModule
from trimton.transforms.distill.schedule import learning_rate
from trimton.transforms.prune.groups import Prunable, weight_axes
from trimton.transforms.prune.importance import Evidence, l2
from trimton.transforms.prune.plan import find, prepared

_SMALLEST = 1e-12


@dataclass(frozen=True)
class _Part:
    """``sets`` gives the set of each index of ``axis``; the last number stands for none."""

    weight: nn.Parameter
    axis: int
    sets: Tensor

    def squares(self) -> Tensor:
        """The squared norm of each index, [indices]."""
        rows = self.weight.detach().movedim(self.axis, 0).reshape(len(self.sets), -1)
        return rows.square().sum(dim=1)

    def scale(self, factors: Tensor) -> None:
        """Multiply what belongs to a set by its factor."""
        shape = [-1 if i == self.axis else 1 for i in range(self.weight.ndim)]
        self.weight.mul_(factors[self.sets].reshape(shape))


class GroupSparsity:
    """The proximal steps for the weights of ``student``, whose graph is ``model``.

    In ``steps`` steps the penalty takes ``strength`` times the mean norm of a group off its sets,
    were nothing to work against it and all alike; a set with half of the mean loses twice as much.
    ``warmup`` is that of the learning rate, in whose proportion it acts.
    Raises UnsupportedModelError where the graph has no groups.
    """

    def __init__(
        self, student: OnnxModule, model: ir.Model, strength: float, steps: int, warmup: float
    ) -> None:
        found = _prunable(model)
        rates = [learning_rate(step, steps, 1.0, warmup) for step in range(steps)]
        growing = np.array(rates) * np.arange(1, steps + 1)
        self._shares = strength * growing / growing.sum()
        self._count = sum(len(group.sets) for group in found.groups)
        self._parts = tuple(_parts(student, found))
        self._lengths = self._mean_norms(found)

    @torch.no_grad()
    def shrink(self, step: int) -> None:
        """Take off what ``step`` (from 0) takes off."""
        relative = self._norms() / self._lengths.clamp_min(_SMALLEST)
        lost = float(self._shares[step]) / relative.square().clamp_min(_SMALLEST)
        factors = torch.where(self._lengths > 0, (1 - lost).clamp_min(0), 1.0)
        for part in self._parts:
            part.scale(factors)

    def _norms(self) -> Tensor:
        """Of every set, and of all that belongs to none, [sets + 1]."""
        squares = torch.zeros(self._count + 1)
        for part in self._parts:
            squares.index_add_(0, part.sets, part.squares().float())
        return squares.sqrt()

    def _mean_norms(self, found: Prunable) -> Tensor:
        """For every set the mean norm of its group; 0 for none, which thus stays."""
        norms, lengths, start = self._norms(), [], 0
        for group in found.groups:
            own = norms[start : start + len(group.sets)]
            lengths.append(own.mean().expand(len(own)))
            start += len(own)
        return torch.cat([*lengths, torch.zeros(1)])


def weak_half(model: ir.Model) -> float:
    """The share of all norms that the weaker half of each group's sets has, the mean of groups.

    0.5 where all sets are alike, 0 where half of them can go without a trace.
    """
    found = _prunable(model)
    norms = l2(Evidence(found.ties, found.found))
    sorted_norms = [np.sort(norms[group.sets]) for group in found.groups]
    shares = [part[: len(part) // 2].sum() / max(part.sum(), _SMALLEST) for part in sorted_norms]
    return float(np.mean(shares))


def _prunable(model: ir.Model) -> Prunable:
    found = find(prepared(model))
    if not found.groups:
        raise UnsupportedModelError("group sparsity: the model has no channels to be removed.")
    return found


def _parts(student: OnnxModule, found: Prunable) -> Iterator[_Part]:
    """Every axis of a weight that learns, with the numbers of the sets along it.

    Sets are numbered group by group; the number behind the last one is that of no set.
    """
    labels = np.concatenate([group.sets for group in found.groups])
    numbers = np.full(found.found.count, len(labels), np.int64)
    numbers[labels] = np.arange(len(labels))
    weights = dict(student.weights())
    for value, axis in weight_axes(found.ties):
        weight = weights.get(value.name or "")
        sets = numbers[found.found.labels[axis.indices]]
        if weight is not None and weight.ndim > axis.position and (sets < len(labels)).any():
            yield _Part(weight, axis.position, torch.from_numpy(sets))
