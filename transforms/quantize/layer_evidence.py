"""What a quantised layer reads and how far from its goal it is, as sums over samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.taps import Taps
from trimton.transforms.prune.refit.features import Rows, rows
from trimton.transforms.prune.refit.group_moments import GroupMoments
from trimton.transforms.prune.refit.site import contribution
from trimton.transforms.prune.refit.taps import is_held_out
from trimton.transforms.quantize.integer_layers import IntegerLayer

Batches = Callable[[], Iterable[Mapping[str, Array]]]

# Rows that are gathered for each feature of a layer: more say little more about its moments.
_ROWS_PER_FEATURE = 8
_LEAST_ROWS = 2048
_SMALLEST = 1e-24


@dataclass(frozen=True)
class Question:
    """What is asked about ``layer``: its moments over ``count`` samples.

    Without ``has_features`` only the error of its output is.
    """

    layer: IntegerLayer
    has_features: bool
    count: int

    @property
    def features(self) -> int:
        """How many features take part."""
        return self.layer.features if self.has_features else 0

    @property
    def target(self) -> str:
        """The value that the layer contributes to: its output, or the sum that follows."""
        return contribution(self.layer.linear.layer.node.outputs[0]).name or ""

    def rows(self, read: Array, number: int) -> Rows:
        """The rows of batch ``number``, of which the layer reads ``read``: always the same."""
        wanted = max(_LEAST_ROWS, _ROWS_PER_FEATURE * self.features)
        places = max(1, -(-wanted // self.count))
        return rows(self.layer.linear.layer, read, places, np.random.default_rng(number))


@dataclass(frozen=True)
class Evidence:
    """Moments of what a layer reads, and of the error of its target.

    Without features the error is the present one, with them that which the float weights would
    leave. ``held_out`` are rows to judge by, where there are enough batches; ``variance`` is that
    of the target in the original, summed over channels.
    """

    seen: GroupMoments
    held_out: GroupMoments | None
    variance: float


def gather_goals(
    original: ir.Model, questions: Sequence[Question], batches: Batches
) -> tuple[tuple[Array, ...], ...]:
    """By question and batch what the target is in the original: [rows, outputs].

    Raises InputError where the model cannot be run on the batches.
    """
    names = [name for q in questions for name in (q.target, q.layer.linear.read)]
    taps = Taps(original, names)
    goals: list[list[Array]] = [[] for _ in questions]
    for number, feed in enumerate(batches()):
        values = taps(feed)
        for question, found in zip(questions, goals, strict=True):
            blank = np.broadcast_to(np.float32(0), values[question.layer.linear.read].shape)
            found.append(question.rows(blank, number).select(values[question.target]))
    return tuple(map(tuple, goals))


def gather(
    quantised: ir.Model, question: Question, goals: Sequence[Array], batches: Batches
) -> Evidence:
    """The evidence on a layer of ``quantised`` as it is now; ``goals`` are those of each batch."""
    layer, linear = question.layer, question.layer.linear
    taps = Taps(quantised, [layer.read, question.target])
    # What the float weights would make of the same rows is the integers' work plus this change.
    change = layer.change()[:, : question.features]
    parts: dict[bool, GroupMoments] = {}
    for number, (feed, goal) in enumerate(zip(batches(), goals, strict=True)):
        values = taps(feed)
        batch = question.rows(values[layer.read], number)
        read = _by_group(batch.features, linear.groups)[:, :, : question.features]
        error = _by_group(goal - batch.select(values[question.target]), linear.groups)
        moments = GroupMoments.of(read, error + read @ change)
        key = is_held_out(number)
        parts[key] = parts[key] + moments if key in parts else moments
    return Evidence(parts[False], parts.get(True), _variance(goals))


def _by_group(array: Array, groups: int) -> Array:
    """[rows, groups * n] -> [groups, rows, n] in double precision."""
    grouped = array.reshape(len(array), groups, -1).astype(np.float64)
    return np.moveaxis(grouped, 1, 0)


def _variance(goals: Sequence[Array]) -> float:
    """The variance of a row over all batches, summed over outputs."""
    count = sum(map(len, goals))
    total = sum(goal.sum(axis=0, dtype=np.float64) for goal in goals)
    squares = sum(float(np.square(goal, dtype=np.float64).sum()) for goal in goals)
    return max(squares / count - float(np.square(total / count).sum()), _SMALLEST)
