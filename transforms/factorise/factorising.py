"""``factorise``: layers of low rank in the place of whole ones, repaired on calibration samples.

Layer by layer from the input to the output. Each is first fitted, on what it reads in the network
as it is by then, to what the original network had; then the first principal components of what
that fit makes are kept (see spectrum). So a layer also repairs what those before it lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from trimton.core.errors import TransformError, UnsupportedModelError
from trimton.transforms.factorise.candidates import Candidate, Ranks, find_candidates
from trimton.transforms.factorise.ranks import choose
from trimton.transforms.factorise.settings import FactoriseSettings
from trimton.transforms.factorise.spectrum import Factors, factors, spectrum
from trimton.transforms.factorise.split import split
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.edit import Array, Editor
from trimton.transforms.graph.inputs import interface
from trimton.transforms.graph.load import one_line
from trimton.transforms.graph.probe import Probe, compare_outputs, given_probes
from trimton.transforms.graph.session import ORT_ERRORS
from trimton.transforms.linear.evidence import Evidence, gather
from trimton.transforms.linear.layers import find_linear_layers, prepared
from trimton.transforms.prune.refit.solve import fit
from trimton.transforms.report import Skipped, Step, TransformReport

_TOLERANCE = 1e-3


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
    done = _carry_out(work, candidates, choice.ranks, samples)
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
    work: ir.Model, candidates: Sequence[Candidate], ranks: Ranks, samples: Mapping[str, Array]
) -> tuple[Step, ...]:
    """Factorise ``work`` in place, and prove it against a copy with products of the factors."""
    original, product = work.clone(), work.clone()
    editor, product_editor = Editor(work), Editor(product)
    twins = {layer.output: layer for layer in find_linear_layers(product).layers}
    steps: list[Step] = []
    for candidate in candidates:
        layer = candidate.layer
        if layer.output not in ranks:
            continue
        evidence = gather(original, work, layer, samples)
        found, before, after = fitted(layer.matrices()[0], evidence, ranks[layer.output])
        twin = twins[layer.output]
        twin.set_matrices((found.reduce @ found.expand)[None])
        twin.add_constant(found.shift, product_editor)
        steps.append(_step(candidate, found.rank, before, after))
        split(layer, found, editor)
    _prove(product, work, samples)
    return tuple(steps)


def fitted(weights: Array, evidence: Evidence, rank: int) -> tuple[Factors, float, float]:
    """The factors of ``rank`` that come closest to the original, and errors on unseen rows.

    Errors are shares of the variance of what the layer contributes to: of the whole layer on
    what it reads by now, and of the factors.
    """
    (everything,), (judge,) = evidence.everything, evidence.judge
    found = fit(evidence.seen[0], None if evidence.held_out is None else evidence.held_out[0])
    best = weights if found is None else weights + found.change
    mean = everything.x / everything.count
    centred = everything.gram / everything.count - np.outer(mean, mean)
    kept = factors(best, spectrum(best.T @ centred @ best), rank, mean @ best)
    constant = np.zeros(len(kept.shift)) if found is None else found.constant
    kept = Factors(kept.reduce, kept.expand, kept.shift + constant)
    before = judge.error(np.zeros_like(weights), np.zeros_like(kept.shift))
    after = judge.error(kept.reduce @ kept.expand - weights, kept.shift)
    return kept, before / evidence.variance, after / evidence.variance


def _step(candidate: Candidate, rank: int, before: float, after: float) -> Step:
    layer = candidate.layer
    energy = candidate.spectrum.kept(rank)
    most = min(layer.shape[1:])
    what = (
        f"{layer.name} factorised, rank {rank} of {most} with {energy:.2%} of its energy; the "
        f"error of what it adds to is {after:.2%} of its variance"
    )
    detail = {
        "layer": layer.name,
        "rank": {"before": most, "after": rank},
        "energy": energy,
        "error": {"before": before, "after": after},
        "macs": {"before": round(candidate.macs()), "after": round(candidate.macs(rank))},
    }
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
    if worst.relative > _TOLERANCE:
        raise TransformError(
            f"the factorisation is wrong for this model: output {worst.name!r} differs by "
            f"{worst.relative:.3g} of its largest value from the model with the products of the "
            f"factors, more than {_TOLERANCE:g}."
        )


def _largest_difference(model: ir.Model, work: ir.Model, probes: Sequence[Probe]) -> float | None:
    if interface(model) != interface(work):
        raise TransformError("the factorised model has another interface than the original.")
    differences = compare_outputs(work, probes)
    return differences[0].relative if np.isfinite(differences[0].relative) else None


def _nothing(skipped: Sequence[Skipped]) -> str:
    reasons = "; ".join(dict.fromkeys(f"{one.what}: {one.why}" for one in skipped[:3]))
    return f"nothing can be factorised ({reasons or 'it has no convolution or matrix product'})."
