"""Refinement: integers and biases that bring a quantised network back to its original.

Layer by layer from the input to the output. What a layer reads is taken from the quantised
network as it is by then, so that each layer also makes up for what is wrong before it. The error
to remove is that of the value that the layer contributes to: of its own output, or of the sum
that follows, where a residual network adds its shortcut.

Source: Frantar et al. 2023, "GPTQ", arXiv:2210.17323; Nagel et al. 2019, arXiv:1906.04721.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.transforms.quantize.calibration.feeds import samples_in
from trimton.transforms.quantize.integer_layers import integer_layers
from trimton.transforms.quantize.judge import Judge
from trimton.transforms.quantize.layer_change import LayerChange, changes, restore
from trimton.transforms.quantize.layer_evidence import Batches, Question, gather, gather_goals
from trimton.transforms.quantize.sites import WeightSite

# Layers whose goals are gathered in one run of the original, and are in memory at once.
_GOALS_AT_ONCE = 8
# The judging samples are few: a layer that is closer may cost the outputs this much on them, all
# layers together.
_TOLERANCE = 1.01
# The moments of more features than these are too large to hold and to invert: of such layers only
# the bias changes.
_MOST_FEATURES = 5120


@dataclass(frozen=True)
class Refined:
    """A layer that was changed; errors are shares of the variance of ``target``.

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

    Without ``rounding`` only biases change. Every fifth batch judges: a layer is changed only if
    the value that it contributes to is closer there, and the network's outputs are, but for a
    hundredth, no further off than they ever were. Memory does not depend on the number of samples.

    Raises InputError where there are no batches or the models cannot be run on them.
    """
    count = sum(map(samples_in, batches()))
    if not count:
        raise InputError("there are no samples to refine the quantised model with.")
    judge = Judge(original, batches)
    least = judge.error(quantised)
    layers = integer_layers(original, quantised, sites)
    asked = [Question(x, rounding and x.features <= _MOST_FEATURES, count) for x in layers]
    asked = [question for question in asked if question.features or question.layer.bias is not None]
    refined: list[Refined] = []
    for start in range(0, len(asked), _GOALS_AT_ONCE):
        some = asked[start : start + _GOALS_AT_ONCE]
        for question, goals in zip(some, gather_goals(original, some, batches), strict=True):
            tried = tuple(changes(question, gather(quantised, question, goals, batches)))
            best, least = _first_that_helps(tried, judge, quantised, least)
            if best is not None:
                name = question.layer.linear.name
                done = Refined(name, question.target, best.method, best.before, best.after)
                refined.append(done)
    return tuple(refined)


def _first_that_helps(
    tried: Iterable[LayerChange], judge: Judge, quantised: ir.Model, least: float
) -> tuple[LayerChange | None, float]:
    """Apply the first of ``tried`` that keeps the outputs as close as ``least``; the new least."""
    for change in tried:
        saved = change.apply()
        error = judge.error(quantised)
        if error <= least * _TOLERANCE:
            return change, min(least, error)
        restore(saved)
    return None, least
