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
from trimton.transforms.prune.refit.moments import Moments
from trimton.transforms.prune.refit.site import contribution
from trimton.transforms.prune.refit.taps import is_held_out
from trimton.transforms.quantize.integer_layers import IntegerLayer, integer_layers
from trimton.transforms.quantize.sites import WeightSite
from trimton.transforms.quantize.weights.candidates import Candidate, candidates

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
    """Moments by group of what a layer reads, and of the error of ``target``.

    Without features the error is the present one, with them that which the float weights would
    leave. ``held_out`` are rows to judge by, where there are enough batches; ``variance`` is that
    of the target in the original, summed over channels.
    """

    target: str
    seen: tuple[Moments, ...]
    held_out: tuple[Moments, ...] | None
    variance: float


def _improve(layer: IntegerLayer, features: int, evidence: _Evidence) -> Refined:
    """Take the best of all candidates, group by group; without ``features`` weights stay."""
    weights, integers = layer.linear.matrices(), layer.integers()
    shifts = np.zeros((layer.linear.groups, integers.shape[2]))
    before = after = 0.0
    chosen: dict[str, int] = {}
    order = layer.kernel_order()[:features]
    for group, seen in enumerate(evidence.seen):
        held_out = None if evidence.held_out is None else evidence.held_out[group]
        judge = seen if held_out is None else held_out
        tried: Sequence[Candidate] = candidates(
            weights[group, :features],
            integers[group, :features],
            layer.scales[group],
            seen,
            held_out,
            order,
            is_paired=layer.is_paired,
            has_bias=layer.bias is not None,
        )
        errors = [
            judge.error(*one.change(weights[group, :features], layer.scales[group]))
            for one in tried
        ]
        best = int(np.argmin(errors))
        integers[group, :features], shifts[group] = tried[best].integers, tried[best].shift
        before, after = before + errors[0], after + errors[best]
        chosen[tried[best].method] = chosen.get(tried[best].method, 0) + 1
    layer.set_integers(integers)
    if layer.bias is not None:
        layer.bias.add(shifts.ravel())
    return Refined(
        layer.linear.name,
        evidence.target,
        max(chosen, key=lambda method: chosen[method]),
        before / evidence.variance,
        after / evidence.variance,
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
    parts: dict[bool, tuple[Moments, ...]] = {}
    spread: Moments | None = None
    for number, feed in enumerate(batches()):
        values, goals = made(feed), reference(feed)
        batch = rows(linear.layer, values[layer.read], max(1, -(-wanted // count)), rng)
        goal = batch.select(goals[target]).astype(np.float64)
        read = _by_group(batch.features, linear.groups)
        error = _by_group(goal - batch.select(values[target]), linear.groups)
        moments = tuple(
            Moments.of(x[:, :features], e + x[:, :features].astype(np.float64) @ c)
            for x, e, c in zip(read, error, change, strict=True)
        )
        own = Moments.of(np.zeros((len(goal), 0)), goal)
        spread = own if spread is None else spread + own
        key = is_held_out(number)
        parts[key] = tuple(map(Moments.__add__, parts[key], moments)) if key in parts else moments
    if spread is None:
        raise ValueError("there are no batches")
    return _Evidence(target, parts[False], parts.get(True), spread.variance())


def _by_group(array: Array, groups: int) -> tuple[Array, ...]:
    """[rows, groups * n] -> one array [rows, n] for each group."""
    return tuple(np.moveaxis(array.reshape(len(array), groups, -1), 1, 0))
