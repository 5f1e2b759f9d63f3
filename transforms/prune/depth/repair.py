"""What can make up for blocks that are gone: layers of the same sum, and all that stand behind."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from trimton.transforms.prune.refit import Site
from trimton.transforms.prune.refit.refitting import can_refit, site_of
from trimton.transforms.prune.relations import collect_ties
from trimton.transforms.prune.rewrites import Kept


def everything_kept(model: ir.Model) -> Kept:
    """A cut of ``model``, whose shapes are inferred, that removes no channel."""
    ties = collect_ties(model)
    return Kept(ties, np.ones(ties.space.size, bool))


def repair_sites(model: ir.Model, kept: Kept, sinks: Collection[str]) -> tuple[Site, ...]:
    """The linear layers of ``model`` that can make up for blocks, in the order of their fits.

    ``sinks`` are the names of what the blocks made, ``kept`` is everything_kept of this model. A
    layer that only adds to a sink can give what the block gave; one behind it, get used to its
    lack.
    """
    position = {id(node): number for number, node in enumerate(model.graph)}
    makers = {id(layer.node.outputs[0]): layer for layer in kept.ties.layers}
    moved: set[int] = set()
    for node in model.graph:
        if any(id(value) in moved for value in node.inputs) or node.outputs[0].name in sinks:
            moved.update(id(output) for output in node.outputs)
    sites: list[Site] = []
    for layer in kept.ties.layers:
        if not can_refit(layer) or len(tuple(layer.weight.uses())) > 1:
            continue
        site = site_of(layer, kept, position, makers)
        if id(layer.activation) in moved or site.target in sinks:
            sites.append(site)
    return tuple(sorted(sites, key=lambda site: site.order))
