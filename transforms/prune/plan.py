"""The plan of a pruning: the groups of a model, their channels ranked, and which of them go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.distill.runtime import require_torch
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.fold import fold_small
from trimton.transforms.graph.normalise import normalise
from trimton.transforms.graph.quantised import quantised_nodes
from trimton.transforms.graph.shapes import infer_shapes, restored_declarations
from trimton.transforms.prune.activations import ChannelMeans, batches, channel_means
from trimton.transforms.prune.allocation import ALLOCATIONS, Limits, Request, allocate
from trimton.transforms.prune.cost_allocation import Problem
from trimton.transforms.prune.cost_profile import first_samples
from trimton.transforms.prune.cost_target import Goal, reach
from trimton.transforms.prune.cut import cut, kept_indices
from trimton.transforms.prune.groups import Prunable, find_groups
from trimton.transforms.prune.importance import (
    CRITERIA,
    NEEDS_ERRORS,
    NEEDS_GRADIENTS,
    NEEDS_MEANS,
    NEEDS_SAMPLES,
    Evidence,
    group_scores,
    l2,
)
from trimton.transforms.prune.index_space import Indices
from trimton.transforms.prune.refit.elimination import Elimination
from trimton.transforms.prune.relations import collect_ties
from trimton.transforms.prune.rewrites import Kept
from trimton.transforms.prune.sensitivity import sensitivities
from trimton.transforms.prune.settings import COST, PruneSettings
from trimton.transforms.prune.sizes import infer_fixed_shapes
from trimton.transforms.report import Skipped


@dataclass(frozen=True)
class Plan:
    """Which sets of ``prunable`` go, group by group, and what was limited or ranked otherwise.

    ``goal`` says how a target of cost was reached, None where there was none.
    """

    prunable: Prunable
    requests: tuple[Request, ...]
    removed: tuple[Indices, ...]
    notes: tuple[Skipped, ...]
    goal: Goal | None = None

    @property
    def kept(self) -> Kept:
        """What stays in the model that the plan was made for."""
        gone = np.concatenate([np.zeros(0, np.int64), *self.removed])
        return kept_indices(self.prunable.ties, self.prunable.found, gone)


def prepared(model: ir.Model) -> ir.Model:
    """A copy of ``model`` in normal form, with all arithmetic of shapes folded.

    Raises UnsupportedModelError for a quantised model.
    """
    if nodes := quantised_nodes(model):
        raise UnsupportedModelError(
            f"the model is already quantised ({nodes[0]} is one of {len(nodes)} such nodes); prune "
            f"the float model, then quantise the result."
        )
    work = normalise(model.clone(), keep_default_inputs=True)
    with restored_declarations(work):
        infer_shapes(work)
        while fold_small(work):
            infer_shapes(work)
    for name, weight in list(work.graph.initializers.items()):
        if not weight.uses() and not (weight.is_graph_input() or weight.is_graph_output()):
            del work.graph.initializers[name]  # what was folded needs it no more
    return work


def find(work: ir.Model, exclude: tuple[str, ...] = ()) -> Prunable:
    """What can be pruned in ``work``, which is prepared; see find_groups for the errors."""
    with restored_declarations(work):
        infer_fixed_shapes(work)
        return find_groups(collect_ties(work), work, exclude)


def make_plan(
    work: ir.Model,
    found: Prunable,
    settings: PruneSettings,
    samples: Mapping[str, Array] | None,
    original: ir.Model | None = None,
) -> Plan:
    """Rank the sets of every group of ``work``, and choose those that go.

    Targets of cost are shares of what ``original`` costs, or else ``work``.
    Raises UnsupportedModelError where there is no group, InputError where the criterion needs
    samples and there are none, or where the model cannot be run on them.
    """
    for name, needs in (
        ("importance", settings.importance in NEEDS_SAMPLES),
        ("allocation", settings.allocation == COST),
    ):
        if needs and samples is None:
            raise InputError(f"{name} {getattr(settings, name)!r}: needs samples; give --data.")
    if not found.groups:
        raise UnsupportedModelError(_nothing_to_prune(found))
    evidence, losses = _evidence(work, found, settings, samples)
    scores, notes = _ranked(evidence, found, settings.importance)
    orders = [np.argsort(score, kind="stable") for score in scores]
    if settings.ratio is None:
        if losses is None:
            losses = sensitivities(work, found, samples or {}, orders)
        base = work if original is None else original
        requests, goal = _by_cost(base, work, found, losses, settings, samples or {})
    else:
        limits = Limits(settings.block, settings.min_kept)
        allocation = ALLOCATIONS[settings.allocation]
        requests, goal = allocate(found.groups, scores, allocation, settings.ratio, limits), None
    removed: list[Indices] = []
    for group, request, order in zip(found.groups, requests, orders, strict=True):
        removed.append(np.sort(group.sets[order[: len(group.sets) - request.kept]]))
        if request.why is not None:
            notes.append(Skipped(group.name, request.why))
    return Plan(found, tuple(requests), tuple(removed), tuple(notes), goal)


def _evidence(
    work: ir.Model,
    found: Prunable,
    settings: PruneSettings,
    samples: Mapping[str, Array] | None,
) -> tuple[Evidence, list[Elimination | None] | None]:
    """What the criterion of ``settings`` looks at, and the losses of groups where it is that."""
    means: Mapping[tuple[str, int], ChannelMeans] = {}
    errors = np.zeros(found.found.count)
    losses: list[Elimination | None] | None = None
    if settings.importance in NEEDS_MEANS and samples is not None:
        means = channel_means(work, found.ties.layers, batches(work, samples))
    if settings.importance in NEEDS_ERRORS and samples is not None:
        losses = sensitivities(work, found, samples)
        for group, lost in zip(found.groups, losses, strict=True):
            if lost is not None:
                errors[group.sets[lost.order]] = lost.errors
    effects = _effects(work, found, settings, samples)
    return Evidence(found.ties, found.found, means, settings.seed, errors, effects), losses


def _effects(
    work: ir.Model,
    found: Prunable,
    settings: PruneSettings,
    samples: Mapping[str, Array] | None,
) -> Array:
    """What gradients say of every set, where the criterion of ``settings`` asks for it."""
    if settings.importance not in NEEDS_GRADIENTS or samples is None:
        return np.zeros(found.found.count)
    require_torch()
    from trimton.transforms.prune.gradients import removal_effects  # torch takes seconds to load

    return removal_effects(work, found, samples, settings.importance, settings.seed)


def _by_cost(
    original: ir.Model,
    work: ir.Model,
    found: Prunable,
    losses: Sequence[Elimination | None],
    settings: PruneSettings,
    samples: Mapping[str, Array],
) -> tuple[list[Request], Goal]:
    """The counts that lose least for the target of ``settings``, and how it was reached."""
    limits = Limits(settings.block, settings.min_kept)

    def trial(kept: Sequence[int]) -> ir.Model:
        copy = work.clone()
        with restored_declarations(copy):
            twin = find(copy, settings.exclude)
            gone = [g.sets[: len(g.sets) - k] for g, k in zip(twin.groups, kept, strict=True)]
            cut(copy, kept_indices(twin.ties, twin.found, np.concatenate(gone)))
        return copy

    problem = Problem(found, losses, limits)
    targets = settings.target_macs, settings.target_speedup
    feed = first_samples(work, samples, settings.speed_batch)
    goal = reach(original, work, problem, *targets, trial, feed)
    why = "no linear layer reads it, so that what its removal costs is unknown"
    return [
        Request(count, count, why if lost is None else None)
        for count, lost in zip(goal.kept, losses, strict=True)
    ], goal


def _ranked(
    evidence: Evidence, found: Prunable, importance: str
) -> tuple[list[Array], list[Skipped]]:
    """The scores of each group's sets; groups that the criterion cannot see are ranked by l2."""
    scores = CRITERIA[importance](evidence)
    unseen = [group for group in found.groups if not scores[group.sets].any()]
    if unseen:
        magnitudes = l2(evidence)
        for group in unseen:
            scores[group.sets] = magnitudes[group.sets]
    why = f"{importance} says nothing about it, so it is ranked by l2"
    notes = [Skipped(group.name, why) for group in unseen]
    return group_scores(scores, found.groups), notes


def _nothing_to_prune(found: Prunable) -> str:
    reasons = Counter(layer.why for layer in found.frozen)
    if not reasons:
        return "the model has no layer with weights outside control flow, so nothing can be pruned."
    why, count = reasons.most_common(1)[0]
    return f"nothing in the model can be pruned: {count} of its layers are kept because {why}."
