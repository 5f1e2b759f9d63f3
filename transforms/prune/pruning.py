"""``prune``: cut the least important channels, prove the cut, repair what it lost on samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.edit import Array, Editor
from trimton.transforms.graph.shapes import restored_declarations
from trimton.transforms.prune.activations import batches, channel_means
from trimton.transforms.prune.constants import Shift, apply_shift, batchnorm_constants, find_shifts
from trimton.transforms.prune.cut import cut, masked
from trimton.transforms.prune.groups import Prunable
from trimton.transforms.prune.plan import Plan, find, make_plan, prepared
from trimton.transforms.prune.proof import output_difference, prove_cut
from trimton.transforms.prune.refit import Refit, refit, refit_sites
from trimton.transforms.prune.rewrites import Kept
from trimton.transforms.prune.settings import PruneSettings
from trimton.transforms.prune.statistics import Reestimate, normalisation_sites, reestimate
from trimton.transforms.report import Skipped, Step, TransformReport


def prunable(model: ir.Model, exclude: tuple[str, ...] = ()) -> Prunable:
    """What can be pruned in ``model``, which is left as it is, and what is frozen and why.

    Raises UnsupportedModelError for a quantised model, InputError for an exclusion of nothing.
    """
    return find(prepared(model), exclude)


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
    work = prepared(model)
    with restored_declarations(work):
        plan = make_plan(work, find(work, settings.exclude), settings, samples)
        repaired, unproven = _carry_out(work, plan, settings, samples)
    steps = (*_cuts(plan), *_goal(plan), *repaired)
    if not steps:
        work = model.clone()
    difference, unmeasured = output_difference(model, work)
    return work, TransformReport(
        transform="prune",
        changed=bool(steps),
        before=model_cost(model),
        after=model_cost(work),
        max_relative_difference=difference,
        steps=steps,
        skipped=(*plan.notes, *_frozen(plan.prunable), *unproven, *unmeasured),
    )


def masked_and_cut(
    model: ir.Model, settings: PruneSettings, samples: Mapping[str, Array] | None = None
) -> tuple[ir.Model, ir.Model]:
    """``model`` ignoring the removed channels, and without them: they compute the same.

    Nothing is folded; raises as prune does, except that nothing is proven.
    """
    work = prepared(model)
    with restored_declarations(work):
        kept = make_plan(work, find(work, settings.exclude), settings, samples).kept
        reference = masked(work, kept)
        cut(work, kept)
    return reference, work


def _carry_out(
    work: ir.Model,
    plan: Plan,
    settings: PruneSettings,
    samples: Mapping[str, Array] | None,
) -> tuple[tuple[Step, ...], tuple[Skipped, ...]]:
    """Cut ``work`` in place, prove it against its masked copy, then repair what it lost."""
    kept = plan.kept
    if kept.is_kept.all():
        return (), ()
    original, reference = work.clone(), masked(work, kept)
    shifts = _shifts(work, kept, samples) if settings.fold_constants else ()
    sites = refit_sites(work, kept) if settings.refit and samples is not None else ()
    normalisations = normalisation_sites(work, kept) if settings.statistics else ()
    cut(work, kept)
    unproven = _prove(reference, work, plan)
    editor = Editor(work)
    for shift in shifts:
        apply_shift(shift, editor)
    what = "what removed channels gave on average added to a bias"
    folded = (Step("fold-constants", what, len(shifts)),) if shifts else ()
    if samples is None:
        return folded, unproven
    reestimates = reestimate(original, work, normalisations, samples)
    refits = refit(original, work, sites, samples)
    return (*folded, *map(_reestimated, reestimates), *map(_refitted, refits)), unproven


def _reestimated(done: Reestimate) -> Step:
    what = (
        f"statistics of {done.name} estimated anew: means moved by {done.mean_shift:.2f} standard "
        f"deviations, variances are {done.variance_ratio:.2f} times what they were"
    )
    detail = {
        "layer": done.name,
        "mean_shift": done.mean_shift,
        "variance_ratio": done.variance_ratio,
    }
    return Step("statistics", what, 1, detail)


def _refitted(done: Refit) -> Step:
    what = (
        f"weights of {done.layer} refitted: the error of {done.target} is {done.after:.2%} of its "
        f"variance, {done.before:.2%} before"
    )
    error = {"before": done.before, "after": done.after}
    return Step("refit", what, 1, {"layer": done.layer, "target": done.target, "error": error})


def _goal(plan: Plan) -> tuple[Step, ...]:
    goal = plan.goal
    if goal is None:
        return ()
    what = f"counts chosen for a target of {goal.asked:g} ({goal.kind}); {goal.reached:.3g} reached"
    detail = {"kind": goal.kind, "asked": goal.asked, "reached": goal.reached}
    return (Step("allocate", what, sum(goal.kept), detail),)


def _shifts(work: ir.Model, kept: Kept, samples: Mapping[str, Array] | None) -> tuple[Shift, ...]:
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
