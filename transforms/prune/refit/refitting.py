"""Refit: linear layers behind a cut get the weights that come closest to the original network.

Layer by layer from the input to the output. The error to remove is that of the value which the
layer contributes to, before its activation: of its own output, or of the sum that follows, where
a residual network adds its shortcut. It is regressed on what the layer reads in the network as it
is by then, so that each fit also repairs what the cuts before it did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, Editor, constant
from trimton.transforms.prune.constants import Shift, apply_shift
from trimton.transforms.prune.refit.features import (
    as_weight,
    is_linear,
    places_for,
    rows,
    weight_matrix,
)
from trimton.transforms.prune.refit.frontier import Frontier
from trimton.transforms.prune.refit.grouped import Batch, fit_groups, is_grouped
from trimton.transforms.prune.refit.moments import Moments
from trimton.transforms.prune.refit.pairs import find_producer, refit_pair
from trimton.transforms.prune.refit.saturation import NO_LIMITS, Limits, limits_of
from trimton.transforms.prune.refit.site import Refit, Site, contribution
from trimton.transforms.prune.refit.solve import fit
from trimton.transforms.prune.refit.taps import is_held_out
from trimton.transforms.prune.rewrites import Kept
from trimton.transforms.prune.ties import Layer

# An error, as a share of the target's variance, that needs no more than a refit alone.
_GOOD_ENOUGH = 1e-3


def refit_sites(model: ir.Model, kept: Kept) -> tuple[Site, ...]:
    """The linear layers at and behind the cuts that ``kept`` makes, in the order of their fits.

    ``kept`` must have been found on this very model, which is not cut yet.
    """
    position = {id(node): number for number, node in enumerate(model.graph)}
    changed = _changed_values(model, kept)
    readers = _weight_readers(kept.ties.layers)
    makers = {id(layer.node.outputs[0]): layer for layer in kept.ties.layers}
    sites: list[Site] = []
    for layer in kept.ties.layers:
        if not can_refit(layer) or id(layer.activation) not in changed:
            continue
        if readers[id(layer.weight)] > 1:
            continue
        sites.append(site_of(layer, kept, position, makers))
    together = {id(site.producer) for site in sites}
    alone = (
        site
        for site in sites
        # A layer that reads what it always did learns enough with the one behind it.
        if id(site.layer) not in together or _loses_inputs(site.layer, kept)
    )
    return tuple(sorted(alone, key=lambda site: site.order))


def _loses_inputs(layer: Layer, kept: Kept) -> bool:
    return layer.inputs is not None and not kept.mask(layer.weight, layer.inputs).all()


def site_of(
    layer: Layer, kept: Kept, position: Mapping[int, int], makers: Mapping[int, Layer]
) -> Site:
    """``layer`` as a site; ``position`` of nodes and ``makers`` of values are given by id."""
    target = contribution(layer.node.outputs[0])
    features = 0 if layer.inputs is None else kept.mask(layer.weight, layer.inputs).sum()
    producer, place = find_producer(layer, makers), position[id(target.producer() or layer.node)]
    return Site(
        layer=layer,
        target=target.name or "",
        is_kept=kept.mask(layer.weight, layer.outputs),
        order=(place, producer is not None, int(features)),
        producer=producer,
        limits=limits_of(target),
    )


def can_refit(layer: Layer) -> bool:
    """Whether refit can fit ``layer``."""
    return is_linear(layer) or is_grouped(layer)


def refit(
    original: ir.Model, pruned: ir.Model, sites: Sequence[Site], samples: Mapping[str, Array]
) -> tuple[Refit, ...]:
    """Refit ``sites``, layers of ``pruned``, in place; sites that gain nothing are left out.

    Memory is bounded, whatever the number of samples. Raises InputError where the models cannot be
    run on ``samples``.
    """
    editor = Editor(pruned)
    networks = Frontier(original, samples), Frontier(pruned, samples)
    return tuple(_refits(*networks, sites, samples, editor))


def _refits(
    original: Frontier,
    pruned: Frontier,
    sites: Sequence[Site],
    samples: Mapping[str, Array],
    editor: Editor,
) -> Iterator[Refit]:
    for number, site in enumerate(sites):
        layer = site.layer
        changing = _changing(sites[number:])
        original.settle(changing)
        pruned.settle(changing)
        if is_grouped(layer):
            yield from _grouped_refit(original, pruned, site, samples, editor)
            continue
        alone = _refit_alone(original, pruned, site, samples, editor, NO_LIMITS)
        if alone is not None:
            yield alone
        if site.producer is None or (alone is not None and alone.after < _GOOD_ENOUGH):
            continue
        together = refit_pair(original, pruned, site, site.producer, editor)
        if together is not None:
            last = _refit_alone(original, pruned, site, samples, editor, site.limits)
            yield together if last is None else replace(together, after=last.after)


def _changing(sites: Sequence[Site]) -> set[str]:
    """The names of what the layers make that fits of ``sites`` may change."""
    layers = [layer for site in sites for layer in (site.layer, site.producer) if layer is not None]
    return {layer.node.outputs[0].name or "" for layer in layers}


def _refit_alone(
    original: Frontier,
    pruned: Frontier,
    site: Site,
    samples: Mapping[str, Array],
    editor: Editor,
    limits: Limits,
) -> Refit | None:
    layer = site.layer
    seen, held_out, variance = _moments(original, pruned, site, samples, limits)
    found = fit(seen, held_out)
    if found is None:
        return None
    weights = as_weight(layer, weight_matrix(layer) + found.change)
    layer.weight.const_value = ir.tensor(weights, name=layer.weight.name)
    apply_shift(Shift(layer.node, found.constant), editor)
    name = layer.node.name or layer.node.outputs[0].name or ""
    return Refit(name, site.target, found.before / variance, found.after / variance)


def _grouped_refit(
    original: Frontier,
    pruned: Frontier,
    site: Site,
    samples: Mapping[str, Array],
    editor: Editor,
) -> Iterator[Refit]:
    layer, read = site.layer, site.layer.activation.name or ""
    pairs = zip(original.run([site.target]), pruned.run([read, site.target]), strict=True)

    def parts() -> Iterator[Batch]:
        for number, (reference, made) in enumerate(pairs):
            wanted = np.compress(site.is_kept, reference[site.target], axis=1)
            yield Batch(made[read], wanted, made[site.target], is_held_out(number))

    found = fit_groups(layer, parts(), min(len(array) for array in samples.values()))
    if found is not None:
        layer.weight.const_value = ir.tensor(found.weights, name=layer.weight.name)
        apply_shift(Shift(layer.node, found.constant), editor)
        name = layer.node.name or layer.node.outputs[0].name or ""
        yield Refit(name, site.target, found.before, found.after)


def _moments(
    original: Frontier,
    pruned: Frontier,
    site: Site,
    samples: Mapping[str, Array],
    limits: Limits,
) -> tuple[Moments, Moments | None, float]:
    """Moments of features and error on rows to fit and to judge, and the target's variance."""
    layer, read = site.layer, site.layer.activation.name or ""
    axis = 1 if layer.node.op_type == "Conv" else -1
    pairs = zip(original.run([site.target]), pruned.run([read, site.target]), strict=True)
    rng = np.random.default_rng(0)
    places = places_for(layer, samples)
    parts: dict[bool, Moments] = {}
    spread = Moments.of(np.zeros((0, 0)), np.zeros((0, int(site.is_kept.sum()))))
    for number, (reference, made) in enumerate(pairs):
        wanted = np.compress(site.is_kept, reference[site.target], axis=axis)
        batch = rows(layer, made[read], places, rng)
        goal, own = batch.select(wanted), batch.select(made[site.target])
        moments = Moments.of(batch.features, limits.goal(goal, own) - own)
        key = is_held_out(number)
        parts[key] = parts[key] + moments if key in parts else moments
        spread = spread + Moments.of(np.zeros((len(goal), 0)), goal)
    return parts[False], parts.get(True), spread.variance()


def _changed_values(model: ir.Model, kept: Kept) -> set[int]:
    """The ids of values that the cut changes, directly or through what is computed from them."""
    changed: set[int] = set()
    for node in model.graph:
        given = [value for value in node.inputs if value is not None]
        is_moved = any(
            id(value) in changed or (constant(value) is not None and kept.is_cut(value))
            for value in given
        )
        if is_moved:
            changed.update(id(output) for output in node.outputs)
    return changed


def _weight_readers(layers: Sequence[Layer]) -> dict[int, int]:
    """How many layers read each weight: one that is shared cannot be fitted for one of them."""
    return {id(layer.weight): len(tuple(layer.weight.uses())) for layer in layers}
