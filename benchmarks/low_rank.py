"""Low rank: what it costs in quality and saves in time, for targets of speed and of work.

    python benchmarks/low_rank.py [--quick] [MODEL...]

For each model and goal: the share of multiply-accumulates that stays, measured speed-ups with one
sample and with eight (interleaved runs, lower quartiles of both), quality (accuracy for
fashion_resnet, agreement with the float model for the others), layers factorised, and seconds.
Beside each, factors of the same ranks from the truncated SVD of the weights alone, which knows
nothing of what they multiply, and from the principal components of the responses without the
layer-by-layer fit. A speed that is out of reach says so. ``--quick`` takes one goal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from evaluation.catalogue import EVALUATIONS
from evaluation.evaluation import Evaluation
from sparsity import MODELS, quality

from trimton.core.errors import InputError
from trimton.transforms.factorise import FactoriseSettings, factorise
from trimton.transforms.factorise.candidates import find_candidates
from trimton.transforms.factorise.costs import factorised
from trimton.transforms.factorise.spectrum import Factors
from trimton.transforms.factorise.split import split
from trimton.transforms.fuse import fuse
from trimton.transforms.graph.edit import Array, Editor
from trimton.transforms.graph.load import load_model
from trimton.transforms.linear import find_linear_layers
from trimton.transforms.linear.layers import prepared
from trimton.transforms.prune.cost_profile import speedup

GOALS: tuple[Mapping[str, Any], ...] = (
    {"target_macs": 0.8},
    {"target_macs": 0.6},
    {"target_speedup": 1.3},
)


def truncated(model: ir.Model, ranks: Mapping[str, int]) -> ir.Model:
    """The same ranks from the singular value decomposition of the weights."""
    copy = prepared(model, "factorise")
    editor = Editor(copy)
    for layer in find_linear_layers(copy).layers:
        if (rank := ranks.get(layer.name)) is not None:
            left, values, right = np.linalg.svd(layer.matrices()[0], full_matrices=False)
            none = np.zeros(layer.shape[2])
            split(layer, Factors(left[:, :rank] * values[:rank], right[:rank], none), editor)
    return copy


def unfitted(model: ir.Model, ranks: Mapping[str, int], samples: Mapping[str, Array]) -> ir.Model:
    """The same ranks from the components of the original's responses."""
    work = prepared(model, "factorise")
    candidates, _ = find_candidates(work, samples, 1, ())
    by_output = {
        candidate.layer.output: ranks[candidate.layer.name]
        for candidate in candidates
        if candidate.layer.name in ranks
    }
    return factorised(work, candidates, by_output)


def first(found: Evaluation, count: int) -> dict[str, Array]:
    """A request of ``count`` calibration samples."""
    return {name: array[:count] for name, array in found.samples().items()}


def table(name: str, goals: tuple[Mapping[str, Any], ...]) -> None:
    found = EVALUATIONS[name]()
    model, _ = fuse(load_model(found.model))
    samples = found.samples()
    print(f"\n{name}, {found.metric} {quality(found, model):.2f} %")
    print(
        f"{'goal':<20} {'layers':>6} {'MACs':>5} {'x 1':>5} {'x 8':>5} {'quality':>8} "
        f"{'unfitted':>8} {'SVD':>6} {'s':>4}"
    )
    for goal in goals:
        ((key, value),) = goal.items()
        asked = f"{key.replace('_', ' ')} {value:g}"
        start = time.perf_counter()
        try:
            made, report = factorise(model, samples, FactoriseSettings(**goal))
        except InputError as error:
            print(f"{asked:<20} {error}", flush=True)
            continue
        seconds = time.perf_counter() - start
        ranks = {
            step.detail["layer"]: step.detail["rank"]["after"]
            for step in report.steps
            if step.name == "factorise"
        }
        macs = (report.after.macs or 0) / (report.before.macs or 1)
        at_1, at_8 = (speedup(model, made, first(found, count)) for count in (1, 8))
        print(
            f"{asked:<20} {len(ranks):>6} {macs:>5.2f} {at_1:>5.2f} {at_8:>5.2f} "
            f"{quality(found, made):>8.2f} "
            f"{quality(found, unfitted(model, ranks, samples)):>8.2f} "
            f"{quality(found, truncated(model, ranks)):>6.2f} {seconds:>4.0f}",
            flush=True,
        )


def main() -> None:
    options = sys.argv[1:]
    names = [option for option in options if option != "--quick"] or list(MODELS)
    for name in names:
        if name not in EVALUATIONS:
            sys.exit(f"no model is named {name}; there are {', '.join(EVALUATIONS)}")
        table(name, GOALS[1:2] if "--quick" in options else GOALS)


if __name__ == "__main__":
    main()
