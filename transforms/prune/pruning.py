"""``prune``: find the groups, rank their channels, cut the least important, prove the cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.edit import Array, Editor
from trimton.transforms.graph.fold import fold_small
from trimton.transforms.graph.normalise import normalise
from trimton.transforms.graph.quantised import quantised_nodes
from trimton.transforms.graph.shapes import infer_shapes, restored_declarations
from trimton.transforms.prune.activations import ChannelMeans, batches, channel_means
from trimton.transforms.prune.allocation import ALLOCATIONS, Limits, Request, allocate
from trimton.transforms.prune.constants import Shift, apply_shift, batchnorm_constants, find_shifts
from trimton.transforms.prune.cut import cut, kept_indices, masked
from trimton.transforms.prune.groups import Prunable, find_groups
from trimton.transforms.prune.importance import (
    CRITERIA,
    NEEDS_SAMPLES,
    Evidence,
    group_scores,
    l2,
)
from trimton.transforms.prune.index_space import Indices
from trimton.transforms.prune.proof import output_difference, prove_cut
from trimton.transforms.prune.relations import collect_ties
from trimton.transforms.prune.rewrites import Kept
from trimton.transforms.prune.settings import PruneSettings
from trimton.transforms.prune.sizes import infer_fixed_shapes
from trimton.transforms.report import Skipped, Step, TransformReport


@dataclass(frozen=True)
class Plan:
    """Which sets of ``prunable`` go, group by group, and what was limited or ranked otherwise."""

    prunable: Prunable
    requests: tuple[Request, ...]
    removed: tuple[Indices, ...]
    notes: tuple[Skipped, ...]

    @property
    def kept(self) -> Kept:
        """What stays in the model that the plan was made for."""
        gone = np.concatenate([np.zeros(0, np.int64), *self.removed])
        return kept_indices(self.prunable.ties, self.prunable.found, gone)


def prunable(model: ir.Model, exclude: tuple[str, ...] = ()) -> Prunable:
    """What can be pruned in ``model``, which is left as it is, and what is frozen and why.

    Raises UnsupportedModelError for a quantised model, InputError for an exclusion of nothing.
    """
    return _find(_prepared(model), exclude)


def prune(
    model: ir.Model, settings: PruneSettings, samples: Mapping[str, Array] | None = None
) -> tuple[ir.Model, TransformReport]:
    """A model with fewer channels and the interface of ``model``, and what was cut.

    ``model`` itself is left as it is. ``samples`` are calibration inputs, arrays by input name,
    first axis = samples. The cut is proven: the result, before constants are folded, equals
    ``model`` with weights of zero for the removed channels. Raises InputError for settings that
    fit nothing, UnsupportedModelError where nothing can be pruned, TransformError where the proof
    fails.
    """
    if settings.importance in NEEDS_SAMPLES and samples is None:
        raise InputError(f"importance {settings.importance!r}: needs samples; give --data.")
    work = _prepared(model)
    with restored_declarations(work):
        plan = _plan(work, _find(work, settings.exclude), settings, samples)
        folded, unproven = _carry_out(work, plan, settings, samples)
    difference, unmeasured = output_difference(model, work)
    steps = (*_cuts(plan), *folded)
    return work, TransformReport(
        transform="prune",
        changed=bool(steps),
        before=model_cost(model),
        after=model_cost(work),
        max_relative_difference=difference,
        steps=steps,
        skipped=(*plan.notes, *_frozen(plan.prunable), *unproven, *unmeasured),
    )


def _prepared(model: ir.Model) -> ir.Model:
    """A copy in normal form, with all arithmetic of shapes folded."""
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
    return work


def _find(work: ir.Model, exclude: tuple[str, ...]) -> Prunable:
    with restored_declarations(work):
        infer_fixed_shapes(work)
        return find_groups(collect_ties(work), work, exclude)


def _plan(
    work: ir.Model,
    found: Prunable,
    settings: PruneSettings,
    samples: Mapping[str, Array] | None,
) -> Plan:
    """Rank the sets of every group, and choose those that go."""
    if not found.groups:
        raise UnsupportedModelError(_nothing_to_prune(found))
    means: Mapping[tuple[str, int], ChannelMeans] = {}
    if settings.importance in NEEDS_SAMPLES and samples is not None:
        means = channel_means(work, found.ties.layers, batches(work, samples))
    evidence = Evidence(found.ties, found.found, means, settings.seed)
    scores, notes = _ranked(evidence, found, settings.importance)
    limits = Limits(settings.multiple, settings.min_kept)
    allocation = ALLOCATIONS[settings.allocation]
    requests = allocate(found.groups, scores, allocation, settings.ratio, limits)
    removed: list[Indices] = []
    for group, request, score in zip(found.groups, requests, scores, strict=True):
        order = np.argsort(score, kind="stable")
        removed.append(np.sort(group.sets[order[: len(group.sets) - request.kept]]))
        if request.why is not None:
            notes.append(Skipped(group.name, request.why))
    return Plan(found, tuple(requests), tuple(removed), tuple(notes))


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


def _carry_out(
    work: ir.Model,
    plan: Plan,
    settings: PruneSettings,
    samples: Mapping[str, Array] | None,
) -> tuple[tuple[Step, ...], tuple[Skipped, ...]]:
    """Cut ``work`` in place, prove it against its masked copy, then fold constants."""
    kept = plan.kept
    if kept.is_kept.all():
        return (), ()
    reference = masked(work, kept)
    shifts: tuple[Shift, ...] = ()
    if settings.fold_constants:
        means = (
            batchnorm_constants(work, kept)
            if samples is None
            else channel_means(work, kept.ties.layers, batches(work, samples))
        )
        shifts = find_shifts(kept, means)
    cut(work, kept)
    unproven = _prove(reference, work, plan)
    editor = Editor(work)
    for shift in shifts:
        apply_shift(shift, editor)
    what = "what removed channels gave on average added to a bias"
    return (Step("fold-constants", what, len(shifts)),) if shifts else (), unproven


def _prove(reference: ir.Model, pruned: ir.Model, plan: Plan) -> tuple[Skipped, ...]:
    """See prove_cut; a normalisation over removed channels changes what it does to the others."""
    moved = [
        group.name
        for group, gone in zip(plan.prunable.groups, plan.removed, strict=True)
        if group.shares_statistics and gone.size
    ]
    if not moved:
        return prove_cut(reference, pruned)[1]
    why = "a normalisation over its channels takes its statistics from fewer of them"
    return tuple(Skipped(name, why) for name in moved)


def _cuts(plan: Plan) -> Iterator[Step]:
    """One step for each group that loses channels."""
    for group, request in zip(plan.prunable.groups, plan.requests, strict=True):
        if request.kept == len(group.sets):
            continue
        after = request.kept * group.width
        removed = len(group.sets) - request.kept
        yield Step(
            name="cut",
            what=f"channels of {group.name} removed, {after} of {group.channels} kept",
            count=group.channels - after,
            detail={
                "group": group.name,
                "layers": list(group.layers),
                "channels": {"before": group.channels, "after": after},
                "channels_at_once": group.width,
                "parameters": removed * group.parameters,
            },
        )


def _frozen(found: Prunable) -> Iterator[Skipped]:
    for layer in found.frozen:
        yield Skipped(layer.name, layer.why)
