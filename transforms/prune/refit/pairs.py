"""Joint refit of a site and of the layer that makes what it reads: see ``joint`` for the method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, Editor
from trimton.transforms.prune.constants import Shift, apply_shift
from trimton.transforms.prune.refit.between import Between, producer_of
from trimton.transforms.prune.refit.features import as_weight, is_linear, weight_matrix
from trimton.transforms.prune.refit.frontier import Frontier
from trimton.transforms.prune.refit.joint import Pair, Pool, Weights, refit_jointly
from trimton.transforms.prune.refit.linear_map import LinearMap, has_map
from trimton.transforms.prune.refit.moments import Moments
from trimton.transforms.prune.refit.saturation import Limits
from trimton.transforms.prune.refit.site import Refit, Site
from trimton.transforms.prune.refit.taps import is_held_out
from trimton.transforms.prune.ties import Layer

# Samples are kept while they fit into this; those beyond take no part in the joint fit.
_POOL_BYTES = 2**29


def refit_pair(
    original: Frontier, pruned: Frontier, site: Site, producer: Layer, editor: Editor
) -> Refit | None:
    """Refit ``producer`` and ``site`` together, in place; None where that gains nothing.

    ``producer`` must be the one that ``find_producer`` gives. Gains are judged on samples that
    the fit does not see, where there are enough.
    """
    gathered = _gather(original, pruned, site, producer)
    pair = Pair(
        LinearMap(producer, gathered.fitted.read.shape[1:]),
        LinearMap(site.layer, gathered.inner.shape[1:]),
        Between(pruned.model, producer, site.layer),
    )
    old = gathered.weights(pair, producer, site.layer)
    new = refit_jointly(pair, old, gathered.fitted, gathered.judging)
    judge = gathered.fitted if gathered.judging is None else gathered.judging
    before, after = pair.error(old, judge), pair.error(new, judge)
    if not after < before:
        return None
    for layer, weights, shift in (
        (producer, pair.first.restored(new.first), new.first_constant - old.first_constant),
        (site.layer, pair.second.restored(new.second), new.second_constant - old.second_constant),
    ):
        layer.weight.const_value = ir.tensor(as_weight(layer, weights), name=layer.weight.name)
        apply_shift(Shift(layer.node, shift.astype(np.float64)), editor)
    names = " and ".join(
        layer.node.name or layer.node.outputs[0].name or "" for layer in (producer, site.layer)
    )
    return Refit(names, site.target, before / gathered.variance, after / gathered.variance)


def find_producer(layer: Layer, makers: Mapping[int, Layer]) -> Layer | None:
    """The layer that can be refitted together with ``layer``, None where there is none.

    ``makers`` are all layers by the id of what they make.
    """
    if not has_map(layer):
        return None
    found = producer_of(layer, makers)
    if found is None or not is_linear(found) or not has_map(found):
        return None
    return found if len(tuple(found.weight.uses())) == 1 else None


@dataclass(frozen=True)
class _Gathered:
    """Samples to fit and to judge, and what one batch shows of the layers as they are.

    ``made`` is what the first layer makes of the first of ``fitted``, ``inner`` what the second
    reads of them and ``out`` what it makes; ``variance`` is that of a row of the goal, summed.
    """

    fitted: Pool
    judging: Pool | None
    made: Array
    inner: Array
    out: Array
    variance: float

    def weights(self, pair: Pair, first: Layer, second: Layer) -> Weights:
        """The weights as they are; constants are whatever the layers add to their products."""
        w, v = (
            mapped.arranged(weight_matrix(layer).astype(np.float32))
            for mapped, layer in ((pair.first, first), (pair.second, second))
        )
        read = self.fitted.read[: len(self.made)]
        b = pair.first.value_rows(self.made) - pair.first.rows(read) @ w
        c = pair.second.value_rows(self.out) - pair.second.rows(self.inner) @ v
        return Weights(w, b.mean(axis=0), v, c.mean(axis=0))


def _gather(original: Frontier, pruned: Frontier, site: Site, producer: Layer) -> _Gathered:
    axis = 1 if site.layer.node.op_type == "Conv" else -1
    names = {
        "read": producer.activation.name or "",
        "made": producer.node.outputs[0].name or "",
        "inner": site.layer.activation.name or "",
        "out": site.layer.node.outputs[0].name or "",
        "sum": site.target,
    }
    pairs = zip(original.run([site.target]), pruned.run(tuple(names.values())), strict=True)
    parts: dict[bool, list[dict[str, Array]]] = {False: [], True: []}
    first: Mapping[str, Array] = {}
    spread: Moments | None = None
    used = 0
    for number, (reference, values) in enumerate(pairs):
        made = {key: values[name].astype(np.float32) for key, name in names.items()}
        first = first or made
        wanted = np.compress(site.is_kept, reference[site.target], axis=axis)
        part = {
            "read": made["read"],
            "wanted": wanted.astype(np.float32),
            "rest": made["sum"] - made["out"],
        }
        parts[is_held_out(number)].append(part)
        rows = np.moveaxis(wanted, axis, -1).reshape(-1, wanted.shape[axis])
        own = Moments.of(np.zeros((len(rows), 0)), rows)
        spread = own if spread is None else spread + own
        used += sum(array.nbytes for array in part.values())
        if used > _POOL_BYTES:
            break
    if spread is None:
        raise ValueError("there are no samples")
    return _Gathered(
        fitted=_joined(parts[False], site.limits),
        judging=_joined(parts[True], site.limits) if parts[True] else None,
        made=first["made"],
        inner=first["inner"],
        out=first["out"],
        variance=spread.variance(),
    )


def _joined(parts: Sequence[dict[str, Array]], limits: Limits) -> Pool:
    """All ``parts`` in one pool; they are emptied, so that nothing large is there twice."""
    arrays = {
        name: np.concatenate([part.pop(name) for part in parts])
        for name in ("read", "wanted", "rest")
    }
    return Pool(**arrays, limits=limits)
