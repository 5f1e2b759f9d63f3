"""Reaching a target of cost: by multiply-accumulates, or by speed as measured on this machine.

The profile of the layers predicts the time of a cut, not exactly: the cut model is measured
against the original, and the prediction is corrected by what that shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.prune.cost_allocation import Problem, least_loss
from trimton.transforms.prune.cost_profile import (
    Feed,
    Trial,
    mac_model,
    speedup,
    time_model,
)

# The shares of their channels that groups keep where the model is profiled.
_PROFILED_SHARES = (0.125, 0.25, 0.5, 0.75)
_CORRECTIONS = 5
# A measured speed-up this close above the target is good enough.
_TOLERANCE = 0.03


@dataclass(frozen=True)
class Goal:
    """The sets that each group keeps; what was ``asked`` for, of which ``kind``, and reached."""

    kept: tuple[int, ...]
    kind: str
    asked: float
    reached: float


def reach(
    original: ir.Model,
    work: ir.Model,
    problem: Problem,
    target_macs: float | None,
    target_speedup: float | None,
    trial: Trial,
    feed: Feed,
) -> Goal:
    """The counts that lose least for one of the targets; ``trial`` makes a cut copy of ``work``.

    A speed is that on ``feed``.

    Targets are shares of what ``original`` costs, from which whole blocks may be gone in ``work``.
    Raises InputError where the target is out of reach.
    """
    if target_macs is not None:
        return _reach_macs(original, work, problem, target_macs)
    return _reach_speedup(original, work, problem, target_speedup or 1.0, trial, feed)


def _reach_macs(original: ir.Model, work: ir.Model, problem: Problem, target: float) -> Goal:
    model = mac_model(work, problem.found)
    before, now = model_cost(original).macs or 1, model_cost(work).macs or 1
    whole = model.cost(problem.groups, problem.whole()) * before / now
    kept = least_loss(problem, model, target * whole)
    reached = model.cost(problem.groups, kept) / whole
    return Goal(tuple(kept), "share of multiply-accumulates", target, reached)


def _reach_speedup(
    original: ir.Model,
    work: ir.Model,
    problem: Problem,
    target: float,
    trial: Trial,
    feed: Feed,
) -> Goal:
    levels = [problem.about(share) for share in _PROFILED_SHARES]
    model = time_model(work, problem.found, trial, levels, feed)
    is_whole = len(original.graph) == len(work.graph)
    so_far = 1.0 if is_whole else speedup(original, work, feed)
    whole = model.cost(problem.groups, problem.whole()) * so_far
    least = model.cost(problem.groups, problem.smallest())
    aim = max(least, whole / target)
    best: Goal | None = None
    for _ in range(_CORRECTIONS):
        kept = least_loss(problem, model, aim)
        reached = speedup(original, trial(kept), feed)
        goal = Goal(tuple(kept), "measured speed-up", target, reached)
        best = goal if best is None else _better(best, goal)
        if target <= reached <= target * (1 + _TOLERANCE):
            break
        aim = max(least, aim * reached / (target * (1 + _TOLERANCE / 2)))
    if best is None or best.reached < target * (1 - _TOLERANCE):
        fastest = 1.0 if best is None else best.reached
        raise InputError(
            f"target speedup {target:g}: is out of reach; the fastest cut tried runs {fastest:.2f} "
            f"times as fast as the model on this machine."
        )
    return best


def _better(one: Goal, other: Goal) -> Goal:
    """That which reaches the target with the least to spare, or comes closest to it."""
    reaching = [goal for goal in (one, other) if goal.reached >= goal.asked]
    if reaching:
        return min(reaching, key=lambda goal: goal.reached)
    return max((one, other), key=lambda goal: goal.reached)
