"""Refinement: integers and biases that bring a quantised network back to its original.

Layer by layer from the input to the output. What a layer reads is taken from the quantised
network as it is by then, so that each layer also makes up for what is wrong before it. The error
to remove is that of the value that the layer contributes to: of its own output, or of the sum
that follows, where a residual network adds its shortcut.

Source: Frantar et al. 2023, "GPTQ", arXiv:2210.17323; Nagel et al. 2019, arXiv:1906.04721.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.transforms.graph.taps import Taps
from trimton.transforms.quantize.integer_layers import IntegerLayer, integer_layers
from trimton.transforms.quantize.layer_evidence import (
    Batches,
    Evidence,
    Question,
    gather,
    gather_goals,
)
from trimton.transforms.quantize.sites import WeightSite
from trimton.transforms.quantize.weights.candidates import Weights, best_by_group, candidates

# Layers whose goals are gathered in one run of the original, and are in memory at once.
_GOALS_AT_ONCE = 8
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

    Raises InputError where there are none or the models cannot be run on them.
    """
    if next(iter(batches()), None) is None:
        raise InputError("there are no samples to refine the quantised model with.")
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
    asked = [Question(x, rounding and x.features <= _MOST_FEATURES, count) for x in layers]
    asked = [question for question in asked if question.features or question.layer.bias is not None]
    refined: list[Refined] = []
    for start in range(0, len(asked), _GOALS_AT_ONCE):
        some = asked[start : start + _GOALS_AT_ONCE]
        for question, goals in zip(some, gather_goals(original, some, batches), strict=True):
            refined.append(_improve(question, gather(quantised, question, goals, batches)))
    return tuple(refined)


def _improve(question: Question, evidence: Evidence) -> Refined:
    """Take the best of all candidates, group by group; without features weights stay."""
    layer, features = question.layer, question.features
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
        question.target,
        tried[int(np.bincount(choice).argmax())].method,
        float(errors[0].sum()) / evidence.variance,
        float(errors[choice, groups].sum()) / evidence.variance,
    )
