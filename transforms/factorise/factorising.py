"""``factorise``: layers of low rank in the place of whole ones, repaired on calibration samples.

Layer by layer from the input to the output. Each is first fitted, on what it reads in the network
as it is by then, to what the original network had; then the first principal components of what
that fit makes are kept (see spectrum). So a layer also repairs what those before it lost, and a
layer behind them that keeps its rank does so, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import onnx_ir as ir

from trimton.core.errors import TransformError, UnsupportedModelError
from trimton.transforms.factorise.candidates import Candidate, find_candidates
from trimton.transforms.factorise.costs import LayerTime
from trimton.transforms.factorise.ranks import Choice, choose
from trimton.transforms.factorise.settings import FactoriseSettings
from trimton.transforms.factorise.spectrum import Factors, factors, spectrum
from trimton.transforms.factorise.split import split
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.edit import Array, Editor
from trimton.transforms.graph.inputs import interface
from trimton.transforms.graph.load import one_line
from trimton.transforms.graph.probe import Probe, compare_outputs, given_probes
from trimton.transforms.graph.session import ORT_ERRORS
from trimton.transforms.graph.tensors import all_tensors
from trimton.transforms.linear.evidence import Evidence, gather
from trimton.transforms.linear.fitting import Goal, errors
from trimton.transforms.linear.layers import LinearLayer, find_linear_layers, prepared
from trimton.transforms.report import Skipped, Step, TransformReport

_TOLERANCE = 1e-3
# Values in half precision round at 1e-3; a few roundings are allowed.
_HALF_TOLERANCE = 2.0**-5


def factorise(
    model: ir.Model, samples: Mapping[str, Array], settings: FactoriseSettings
) -> tuple[ir.Model, TransformReport]:
    """A model with layers of low rank and the interface of ``model``, and what was done.

    ``model`` itself is left as it is. ``samples`` are calibration inputs, arrays by input name,
    first axis = samples. Raises UnsupportedModelError where nothing can be factorised, InputError
    for samples or settings that do not fit, TransformError where the result is not what it claims
    to be: the original with matrices of low rank.
    """
    work = prepared(model, "factorise")
    probes = given_probes(model, samples)
    candidates, skipped = find_candidates(work, samples, settings.multiple, settings.exclude)
    if not candidates:
        raise UnsupportedModelError(_nothing(skipped))
    choice = choose(work, candidates, settings, samples)
    done = _carry_out(work, candidates, choice, settings.exclude, samples)
    difference = _largest_difference(model, work, probes)
    steps = (*done, choice.goal) if done else ()
    return work, TransformReport(
        transform="factorise",
        changed=bool(done),
        before=model_cost(model),
        after=model_cost(work),
        max_relative_difference=difference,
        steps=steps,
        skipped=(*skipped, *choice.skipped),
    )


def _carry_out(
    work: ir.Model,
    candidates: Sequence[Candidate],
    choice: Choice,
    exclude: Sequence[str],
    samples: Mapping[str, Array],
) -> tuple[Step, ...]:
    """Factorise ``work`` in place, and prove it against a copy with products of the factors.

    Layers behind a factorised one that stay whole are fitted, too.
    """
    original, product = work.clone(), work.clone()
    editor, product_editor = Editor(work), Editor(product)
    twins = {layer.output: layer for layer in find_linear_layers(product).layers}
    by_output = {candidate.layer.output: candidate for candidate in candidates}
    moved = downstream(work, choice.ranks)
    layers = [
        layer
        for layer in find_linear_layers(work).layers
        if layer.output in choice.ranks
        or (layer.read in moved and not any(fnmatchcase(layer.name, one) for one in exclude))
    ]
    steps: list[Step] = []
    for layer in layers:
        rank = choice.ranks.get(layer.output)
        evidence = gather(original, work, layer, samples)
        old = layer.matrices()
        goal = Goal.of(old, evidence)
        twin = twins[layer.output]
        if rank is None and goal.is_reached_by(old):
            continue
        if rank is None:
            new, shift = goal.weights, goal.constant
            layer.set_matrices(new)
            layer.add_constant(shift.reshape(-1), editor)
            steps.append(_refitted(layer, errors(old, new, shift, evidence)))
        else:
            found = low_rank(goal, evidence, rank)
            new, shift = found.product[None], found.shift[None]
            error = errors(old, new, shift, evidence)
            time = choice.times.get(layer.output)
            steps.append(_factorised(by_output[layer.output], rank, error, time))
            split(layer, found, editor)
        twin.set_matrices(new)
        twin.add_constant(shift.reshape(-1), product_editor)
    _prove(product, work, samples)
    return tuple(steps)


def low_rank(goal: Goal, evidence: Evidence, rank: int) -> Factors:
    """The factors of ``rank`` whose product comes closest to ``goal``, a layer of one group."""
    (moments,), (best,) = evidence.everything, goal.weights
    mean = moments.x / moments.count
    centred = moments.gram / moments.count - np.outer(mean, mean)
    found = factors(best, spectrum(best.T @ centred @ best), rank, mean @ best)
    return Factors(found.reduce, found.expand, found.shift + goal.constant[0])


def downstream(model: ir.Model, outputs: Collection[str]) -> set[str]:
    """The names of all values that depend on one of ``outputs``, and these."""
    moved = set(outputs)
    for node in model.graph:
        if any(value is not None and value.name in moved for value in node.inputs):
            moved.update(value.name for value in node.outputs if value.name)
    return moved


def _refitted(layer: LinearLayer, error: Mapping[str, float]) -> Step:
    what = (
        f"weights of {layer.name} refitted: the error of what it adds to is {error['after']:.2%} "
        f"of its variance, {error['before']:.2%} before"
    )
    return Step("refit", what, 1, {"layer": layer.name, "error": dict(error)})


def _factorised(
    candidate: Candidate, rank: int, error: Mapping[str, float], time: LayerTime | None
) -> Step:
    layer = candidate.layer
    energy = candidate.spectrum.kept(rank)
    most = min(layer.shape[1:])
    what = (
        f"{layer.name} factorised, rank {rank} of {most} with {energy:.2%} of its energy; the "
        f"error of what it adds to is {error['after']:.2%} of its variance"
    )
    detail: dict[str, Any] = {
        "layer": layer.name,
        "rank": {"before": most, "after": rank},
        "energy": energy,
        "error": dict(error),
        "macs": {"before": round(candidate.macs()), "after": round(candidate.macs(rank))},
    }
    if time is not None and time.is_saved:
        what += f", {time.factorised_us:.0f} µs instead of {time.whole_us:.0f}"
        detail["time_us"] = {"before": time.whole_us, "after": time.factorised_us}
    return Step("factorise", what, 1, detail)


def _prove(product: ir.Model, work: ir.Model, samples: Mapping[str, Array]) -> None:
    """Two layers of low rank compute what one with the product of their weights does."""
    probes = given_probes(product, samples)
    try:
        worst = compare_outputs(work, probes)[0]
    except ORT_ERRORS as error:
        raise TransformError(
            f"the factorised model cannot be run: {one_line(str(error))}."
        ) from error
    is_half = any(tensor.dtype == ir.DataType.FLOAT16 for tensor in all_tensors(work))
    allowed = _HALF_TOLERANCE if is_half else _TOLERANCE
    if worst.relative > allowed:
        raise TransformError(
            f"the factorisation is wrong for this model: output {worst.name!r} differs by "
            f"{worst.relative:.3g} of its largest value from the model with the products of the "
            f"factors, more than {allowed:g}."
        )


def _largest_difference(model: ir.Model, work: ir.Model, probes: Sequence[Probe]) -> float | None:
    if interface(model) != interface(work):
        raise TransformError("the factorised model has another interface than the original.")
    differences = compare_outputs(work, probes)
    return differences[0].relative if np.isfinite(differences[0].relative) else None


def _nothing(skipped: Sequence[Skipped]) -> str:
    reasons = "; ".join(dict.fromkeys(f"{one.what}: {one.why}" for one in skipped[:3]))
    return f"nothing can be factorised ({reasons or 'it has no convolution or matrix product'})."
