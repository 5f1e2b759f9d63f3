"""A whole model, quantised part by part: its main graph, and every branch that samples reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from trimton.transforms.graph.taps import Feed
from trimton.transforms.quantize.branches import Batches, Branch, branches, put_back
from trimton.transforms.quantize.equalisation import equalise
from trimton.transforms.quantize.fidelity import Reference
from trimton.transforms.quantize.integer_forms import to_integer_forms
from trimton.transforms.quantize.mixed_precision import Mixed, goal_of, mix
from trimton.transforms.quantize.quantiser import Quantised, Quantiser, Samples
from trimton.transforms.quantize.range_choice import RangeChoice, choose_ranges
from trimton.transforms.quantize.settings import QuantizeSettings
from trimton.transforms.quantize.smoothquant import smooth
from trimton.transforms.quantize.targets import Target
from trimton.transforms.report import Skipped, Step


@dataclass(frozen=True)
class Part:
    """One graph: its float form as it was quantised, what became of it, and rewrites before.

    ``ranges`` tells how the method of ranges was chosen and ``mixed`` which layers stayed in float
    for the sake of the outputs, if that was asked.
    """

    prepared: ir.Model
    quantised: Quantised
    rewrites: tuple[Step, ...]
    ranges: RangeChoice | None
    mixed: Mixed | None


@dataclass(frozen=True)
class Whole:
    """The quantised ``model``; ``parts``, the main graph first; branches that were left alone."""

    model: ir.Model
    parts: tuple[Part, ...]
    skipped: tuple[Skipped, ...]


def quantise_parts(
    prepared: ir.Model, samples: Samples, target: Target, settings: QuantizeSettings
) -> Whole:
    """Quantise ``prepared`` (see prepare), which is rewritten in place first, and its branches."""
    quantiser = Quantiser(prepared, samples, target, settings)
    rewrites = to_integer_forms(prepared)
    if settings.equalise:
        rewrites += equalise(prepared)
    if settings.smooth:
        layers = {site.layer for site in quantiser.place().weights}
        rewrites += smooth(prepared, quantiser.batches(), layers)
    ranges = choose_ranges(quantiser, settings)
    mixed = _mixed(quantiser, settings)
    made = quantiser.make(quantiser.place()) if mixed is None else mixed.made
    parts, skipped = [Part(prepared, made, rewrites, ranges, mixed)], list[Skipped]()
    for branch in branches(prepared):
        reached = _Reached(branch, prepared, quantiser.batches)
        if next(iter(reached), None) is None:
            skipped.append(
                Skipped(f"{branch.attribute} of {branch.node}", "no sample reaches this branch")
            )
            continue
        inner = quantise_parts(branch.model, reached, target, settings)
        if any(part.quantised.placement.weights for part in inner.parts):
            put_back(branch, inner.model, made.model)
            parts.extend(inner.parts)
        else:
            skipped.extend(s for part in inner.parts for s in part.quantised.placement.skipped)
        skipped.extend(inner.skipped)
    return Whole(made.model, tuple(parts), tuple(skipped))


def _mixed(quantiser: Quantiser, settings: QuantizeSettings) -> Mixed | None:
    """The choice of layers that stay in float; None where none may or nothing is quantised."""
    goal = goal_of(settings)
    if goal is None or not quantiser.place().weights:
        return None
    return mix(quantiser, Reference(quantiser.prepared, quantiser.batches()), goal)


@dataclass(frozen=True)
class _Reached:
    """The feeds that reach a branch, again for each iteration: none is kept."""

    branch: Branch
    around: ir.Model
    batches: Batches

    def __iter__(self) -> Iterator[Feed]:
        return self.branch.feeds(self.around, self.batches)
