"""What pruning says that it did: one step of the report for each cut, removal and repair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trimton.transforms.prune.constants import Shift
from trimton.transforms.prune.depth import Drop
from trimton.transforms.prune.groups import Prunable
from trimton.transforms.prune.plan import Plan
from trimton.transforms.prune.refit import Refit
from trimton.transforms.prune.statistics import Reestimate
from trimton.transforms.report import Skipped, Step


def dropped(drop: Drop) -> Step:
    """A whole block that is gone."""
    block = drop.block
    what = f"{block.kind} up to {block.name} removed: {', '.join(block.layers)}"
    detail = {
        "block": block.name,
        "kind": block.kind,
        "layers": list(block.layers),
        "parameters": block.parameters,
        "macs": block.macs,
        "damage": drop.damage,
    }
    return Step("drop-block", what, 1, detail)


def folded(shifts: Sequence[Shift]) -> Iterator[Step]:
    """Means of removed channels that went into biases."""
    what = "what removed channels gave on average added to a bias"
    if shifts:
        yield Step("fold-constants", what, len(shifts))


def reestimated(done: Reestimate) -> Step:
    """Statistics of one BatchNormalization."""
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


def refitted(done: Refit) -> Step:
    """Weights of one layer."""
    what = (
        f"weights of {done.layer} refitted: the error of {done.target} is {done.after:.2%} of its "
        f"variance, {done.before:.2%} before"
    )
    error = {"before": done.before, "after": done.after}
    return Step("refit", what, 1, {"layer": done.layer, "target": done.target, "error": error})


def goal(plan: Plan) -> Iterator[Step]:
    """The target that counts were chosen for."""
    aim = plan.goal
    if aim is None:
        return
    what = f"counts chosen for a target of {aim.asked:g} ({aim.kind}); {aim.reached:.3g} reached"
    detail = {"kind": aim.kind, "asked": aim.asked, "reached": aim.reached}
    yield Step("allocate", what, sum(aim.kept), detail)


def cuts(plan: Plan) -> Iterator[Step]:
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


def frozen(found: Prunable) -> Iterator[Skipped]:
    """Layers of which channels had to stay."""
    for layer in found.frozen:
        yield Skipped(layer.name, layer.why)
