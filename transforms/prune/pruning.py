"""``prune``: remove blocks and the least important channels, prove the cut, repair what it lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.edit import Array, Editor
from trimton.transforms.graph.shapes import restored_declarations
from trimton.transforms.prune import steps
from trimton.transforms.prune.activations import batches, channel_means
from trimton.transforms.prune.constants import Shift, apply_shift, batchnorm_constants, find_shifts
from trimton.transforms.prune.cut import cut, masked
from trimton.transforms.prune.depth import (
    Block,
    Drop,
    drop_blocks,
    everything_kept,
    find_blocks,
    removable_blocks,
    repair_sites,
)
from trimton.transforms.prune.groups import Prunable
from trimton.transforms.prune.plan import Plan, find, make_plan, prepared
from trimton.transforms.prune.proof import output_difference, prove_cut
from trimton.transforms.prune.refit import refit, refit_sites
from trimton.transforms.prune.rewrites import Kept
from trimton.transforms.prune.settings import PruneSettings
from trimton.transforms.prune.sizes import infer_fixed_shapes
from trimton.transforms.prune.statistics import normalisation_sites, reestimate
from trimton.transforms.report import Skipped, Step, TransformReport

Samples = Mapping[str, Array]


@dataclass(frozen=True)
class _Account:
    """What was done, and what was left alone."""

    steps: tuple[Step, ...] = ()
    skipped: tuple[Skipped, ...] = ()


def prunable(model: ir.Model, exclude: tuple[str, ...] = ()) -> Prunable:
    """What can be pruned in ``model``, which is left as it is, and what is frozen and why.

    Raises UnsupportedModelError for a quantised model, InputError for an exclusion of nothing.
    """
    return find(prepared(model), exclude)


def blocks(model: ir.Model) -> tuple[Block, ...]:
    """The blocks that ``model``, which is left as it is, can be run without, in order.

    Raises UnsupportedModelError for a quantised model.
    """
    work = prepared(model)
    infer_fixed_shapes(work)
    return find_blocks(work)


def ranked_blocks(model: ir.Model, samples: Samples) -> tuple[Drop, ...]:
    """``blocks`` with what the absence of each does to the outputs on ``samples``, dearest last.

    Raises as blocks does, and InputError where the model cannot be run on ``samples``.
    """
    work = prepared(model)
    infer_fixed_shapes(work)
    return removable_blocks(work, samples)


def prune(
    model: ir.Model, settings: PruneSettings, samples: Samples | None = None
) -> tuple[ir.Model, TransformReport]:
    """A model with fewer blocks and channels and the interface of ``model``, and what was cut.

    ``model`` itself is left as it is. ``samples`` are calibration inputs, arrays by input name,
    first axis = samples. The cut of channels is proven: the result, before constants are folded,
    equals the model with weights of zero for the removed channels. Raises InputError for settings
    that fit nothing, UnsupportedModelError where nothing can be pruned, TransformError where the
    proof fails.
    """
    original = prepared(model)
    work = original.clone()
    with restored_declarations(work):
        dropped = _drop(original, work, settings, samples)
        cut_away = _cut(original, work, settings, samples)
    done = (*dropped, *cut_away.steps)
    if not done:
        work = model.clone()
    difference, unmeasured = output_difference(model, work)
    return work, TransformReport(
        transform="prune",
        changed=bool(done),
        before=model_cost(model),
        after=model_cost(work),
        max_relative_difference=difference,
        steps=done,
        skipped=(*cut_away.skipped, *unmeasured),
    )


def masked_and_cut(
    model: ir.Model, settings: PruneSettings, samples: Samples | None = None
) -> tuple[ir.Model, ir.Model]:
    """``model`` ignoring the removed channels, and without them: they compute the same.

    Nothing is folded, and no block removed; raises as prune does, except that nothing is proven.
    """
    work = prepared(model)
    with restored_declarations(work):
        kept = make_plan(work, find(work, settings.exclude), settings, samples).kept
        reference = masked(work, kept)
        cut(work, kept)
    return reference, work


def _drop(
    original: ir.Model, work: ir.Model, settings: PruneSettings, samples: Samples | None
) -> tuple[Step, ...]:
    """Remove whole blocks from ``work``, in place, and let the other layers make up for them."""
    if not settings.blocks:
        return ()
    if samples is None:
        raise InputError(f"blocks {settings.blocks}: needs samples; give --data.")
    drops = drop_blocks(work, settings.blocks, samples)
    infer_fixed_shapes(work)
    kept = everything_kept(work)
    normalisations = normalisation_sites(work, kept) if settings.estimates_statistics else ()
    sites = repair_sites(work, kept, {drop.bypass.sink for drop in drops}) if settings.refit else ()
    return (
        *map(steps.dropped, drops),
        *map(steps.reestimated, reestimate(original, work, normalisations, samples)),
        *map(steps.refitted, refit(original, work, sites, samples)),
    )


def _cut(
    original: ir.Model, work: ir.Model, settings: PruneSettings, samples: Samples | None
) -> _Account:
    """Cut channels of ``work`` in place, prove it against a masked copy, then repair what it lost.

    ``original`` is what the repairs aim at.
    """
    if not settings.cuts_channels:
        return _Account()
    plan = make_plan(work, find(work, settings.exclude), settings, samples, original)
    kept = plan.kept
    left_alone = (*plan.notes, *steps.frozen(plan.prunable))
    if kept.is_kept.all():
        return _Account(skipped=left_alone)
    reference = masked(work, kept)
    shifts = _shifts(work, kept, samples) if settings.fold_constants else ()
    sites = refit_sites(work, kept) if settings.refit and samples is not None else ()
    normalisations = normalisation_sites(work, kept) if settings.estimates_statistics else ()
    cut(work, kept)
    unproven = _prove(reference, work, plan)
    editor = Editor(work)
    for shift in shifts:
        apply_shift(shift, editor)
    done = (*steps.cuts(plan), *steps.goal(plan), *steps.folded(shifts))
    if samples is not None:
        done = (
            *done,
            *map(steps.reestimated, reestimate(original, work, normalisations, samples)),
            *map(steps.refitted, refit(original, work, sites, samples)),
        )
    return _Account(done, (*left_alone, *unproven))


def _shifts(work: ir.Model, kept: Kept, samples: Samples | None) -> tuple[Shift, ...]:
    """What removed channels gave on average, on samples or else by their BatchNormalizations."""
    if samples is None:
        return find_shifts(kept, batchnorm_constants(work, kept))
    return find_shifts(kept, channel_means(work, kept.ties.layers, batches(work, samples)))


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
