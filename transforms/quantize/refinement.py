"""Refinement: integers and biases that bring a quantised network back to its original.

Layer by layer from the input to the output. What a layer reads is taken from the quantised
network as it is by then, so that each layer also makes up for what is wrong before it. The error
to remove is that of the value that the layer contributes to: of its own output, or of the sum
that follows, where a residual network adds its shortcut.

Source: Frantar et al. 2023, "GPTQ", arXiv:2210.17323; Nagel et al. 2019, arXiv:1906.04721.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.taps import Taps
from trimton.transforms.prune.refit.features import rows
from trimton.transforms.prune.refit.group_moments import GroupMoments
from trimton.transforms.prune.refit.moments import Moments
from trimton.transforms.prune.refit.site import contribution
from trimton.transforms.prune.refit.taps import is_held_out
from trimton.transforms.quantize.integer_layers import IntegerLayer, integer_layers
from trimton.transforms.quantize.sites import WeightSite
from trimton.transforms.quantize.weights.candidates import Weights, best_by_group, candidates

Batches = Callable[[], Iterable[Mapping[str, Array]]]

# Rows that are gathered for each feature of a layer: more say little more about its moments.
_ROWS_PER_FEATURE = 8
_LEAST_ROWS = 2048
# The moments of more features than these are too large to hold and to invert: of such layers only
# the bias changes.
_MOST_FEATURES = 5120


@dataclass(frozen=True)
class Refined:
    """What the refinement of a layer did; errors are shares of the variance of ``target``.

    ``method`` names what was best on rows that the fit has not seen.
    """

    layer: str
    target: str
    method: str
    before: float
    after: float


def refine(
    original: ir.Model,
    quantised: ir.Model,
    sites: Sequence[WeightSite],
    batches: Batches,
    *,
    rounding: bool = True,
) -> tuple[Refined, ...]:
    """Refine the layers of ``sites`` in ``quantised``, which was made of ``original``; in place.

    Without ``rounding`` only biases change. Every fifth batch judges the layers: none is changed
    that is not better there. Where the network's outputs on all batches are not better for it,
    only biases are changed, or nothing. Memory does not depend on the number of samples.

    Raises InputError where the models cannot be run on the batches.
    """
    layers = integer_layers(original, quantised, sites)
    before = output_error(original, quantised, batches)
    saved = _constants(layers)
    for with_rounding in (True, False) if rounding else (False,):
        refined = _refine_layers(original, quantised, layers, batches, with_rounding)
        if output_error(original, quantised, batches) <= before:
            return refined
        for value, tensor in saved.items():
            value.const_value = tensor
    return ()


def output_error(original: ir.Model, quantised: ir.Model, batches: Batches) -> float:
    """The squared error of the floats that both models put out, a share of their variance.

    The mean over outputs.
    """
    names = [value.name or "" for value in original.graph.outputs]
    reference, made = Taps(original, names), Taps(quantised, names)
    errors, spreads = np.zeros(len(names)), np.zeros(len(names))
    for feed in batches():
        exact, now = reference(feed), made(feed)
        for place, name in enumerate(names):
            if exact[name].dtype.kind == "f":
                goal = exact[name].astype(np.float64)
                errors[place] += np.square(now[name] - goal).sum()
                spreads[place] += np.square(goal - goal.mean()).sum()
    is_told = spreads > 0
    return float((errors[is_told] / spreads[is_told]).mean()) if is_told.any() else 0.0


def _constants(layers: Sequence[IntegerLayer]) -> Mapping[ir.Value, ir.TensorProtocol | None]:
    """What ``layers`` are made of, as it is now."""
    values = [layer.weight for layer in layers]
    values += [layer.bias.value for layer in layers if layer.bias is not None]
    return {value: value.const_value for value in values}


def _refine_layers(
    original: ir.Model,
    quantised: ir.Model,
    layers: Sequence[IntegerLayer],
    batches: Batches,
    rounding: bool,
) -> tuple[Refined, ...]:
    count = sum(len(next(iter(feed.values()))) for feed in batches())
    refined: list[Refined] = []
    for layer in layers:
        features = layer.features if rounding and layer.features <= _MOST_FEATURES else 0
        if not features and layer.bias is None:
            continue
        evidence = _gather(original, quantised, layer, features, batches, count)
        refined.append(_improve(layer, features, evidence))
    return tuple(refined)


@dataclass(frozen=True)
class _Evidence:
    """Moments of what a layer reads, and of the error of ``target``.

    Without features the error is the present one, with them that which the float weights would
    leave. ``held_out`` are rows to judge by, where there are enough batches; ``variance`` is that
    of the target in the original, summed over channels.
    """

    target: str
    seen: GroupMoments
    held_out: GroupMoments | None
    variance: float


def _improve(layer: IntegerLayer, features: int, evidence: _Evidence) -> Refined:
    """Take the best of all candidates, group by group; without ``features`` weights stay."""
    integers = layer.integers()
    weights = Weights(
        layer.linear.matrices()[:, :features],
        integers[:, :features],
        layer.scales,
        layer.kernel_order()[:features],
        layer.is_paired,
    )
    seen, held_out = evidence.seen, evidence.held_out
    tried = candidates(weights, seen, held_out, has_bias=layer.bias is not None)
    choice, errors = best_by_group(tried, weights, seen if held_out is None else held_out)
    groups = np.arange(len(integers))
    integers[:, :features] = np.stack([one.integers for one in tried])[choice, groups]
    layer.set_integers(integers)
    if layer.bias is not None:
        layer.bias.add(np.stack([one.shift for one in tried])[choice, groups].ravel())
    return Refined(
        layer.linear.name,
        evidence.target,
        tried[int(np.bincount(choice).argmax())].method,
        float(errors[0].sum()) / evidence.variance,
        float(errors[choice, groups].sum()) / evidence.variance,
    )


def _gather(
    original: ir.Model,
    quantised: ir.Model,
    layer: IntegerLayer,
    features: int,
    batches: Batches,
    count: int,
) -> _Evidence:
    linear = layer.linear
    target = contribution(linear.layer.node.outputs[0]).name or ""
    reference, made = Taps(original, [target]), Taps(quantised, [layer.read, target])
    rng = np.random.default_rng(0)
    # What the float weights would make of the same rows is the integers' work plus this change.
    change = (layer.integers() * layer.scales[:, None, :] - linear.matrices())[:, :features]
    wanted = max(_LEAST_ROWS, _ROWS_PER_FEATURE * features)
    parts: dict[bool, GroupMoments] = {}
    spread: Moments | None = None
    for number, feed in enumerate(batches()):
        values, goals = made(feed), reference(feed)
        batch = rows(linear.layer, values[layer.read], max(1, -(-wanted // count)), rng)
        goal = batch.select(goals[target]).astype(np.float64)
        read = _by_group(batch.features, linear.groups)[:, :, :features].astype(np.float64)
        error = _by_group(goal - batch.select(values[target]), linear.groups)
        moments = GroupMoments.of(read, error + read @ change)
        own = Moments.of(np.zeros((len(goal), 0)), goal)
        spread = own if spread is None else spread + own
        key = is_held_out(number)
        parts[key] = parts[key] + moments if key in parts else moments
    if spread is None:
        raise ValueError("there are no batches")
    return _Evidence(target, parts[False], parts.get(True), spread.variance())


def _by_group(array: Array, groups: int) -> Array:
    """[rows, groups * n] -> [groups, rows, n]."""
    return np.moveaxis(array.reshape(len(array), groups, -1), 1, 0)
