"""One model for two targets: what a target changes, and what must not change.

    python benchmarks/quantize_targets.py [NAME...]

Each model is quantised on the same samples for processors with 8-bit dot products (avx512_vnni)
and without (avx2). Both must be valid ONNX, run, and say what they were made for; only the one
for avx2 may hold no pair of neighbouring weights whose sum saturates in 16 bits. Placement and
ranges of activations are the same. Exit code 1 where anything of this is not so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from evaluation.catalogue import EVALUATIONS
from evaluation.evaluation import Array, Evaluation

from trimton.transforms.fuse import fuse
from trimton.transforms.graph.edit import constant_array
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.quantize.prepare import prepare
from trimton.transforms.quantize.quantiser import TARGET_KEY, Quantised, Quantiser
from trimton.transforms.quantize.settings import QuantizeSettings
from trimton.transforms.quantize.sites import WeightSite
from trimton.transforms.quantize.targets import target_named
from trimton.transforms.quantize.weights.pairs import saturating_pairs
from trimton.transforms.quantize.weights.rows import row_order

MODELS = ("fashion_resnet", "efficientnet_lite0", "minilm_l3")
SAFE, FAST = "avx2", "avx512_vnni"
SAMPLES = 32


@dataclass(frozen=True)
class Comparison:
    """Of all weights in sums that can saturate: how many, how many differ between the targets,
    and the pairs that saturate by target. ``ranges_differ`` counts activations."""

    weights: int
    differing: int
    saturating: dict[str, int]
    nodes_differ: int
    ranges_differ: int

    def problems(self) -> Iterator[str]:
        """What is not as it should be, in words."""
        if self.saturating[SAFE]:
            yield f"{self.saturating[SAFE]} pairs saturate in the model for {SAFE}"
        if not self.differing:
            yield "no weight differs"
        if self.nodes_differ or self.ranges_differ:
            yield f"{self.nodes_differ} nodes and {self.ranges_differ} ranges differ"


def made_for(target: str, prepared: ir.Model, evaluation: Evaluation) -> Quantised:
    """``prepared`` for ``target``; raises where the result is not valid or does not run."""
    samples = {name: array[:SAMPLES] for name, array in evaluation.samples().items()}
    quantiser = Quantiser(prepared, samples, target_named(target), QuantizeSettings())
    made = quantiser.make(quantiser.place())
    onnx.checker.check_model(ir.to_proto(made.model), full_check=True)
    run(open_session(made.model), dict(evaluation.request))
    if made.model.metadata_props[TARGET_KEY] != target:
        raise ValueError(f"the model says {made.model.metadata_props[TARGET_KEY]}, not {target}")
    return made


def compare(safe: Quantised, fast: Quantised) -> Comparison:
    """Weights are compared in the order of the kernel's sums."""
    summed = [site for site in safe.placement.weights if site.kernel is not None]
    rows = {
        name: [_rows(made, site) for site in summed] for name, made in ((SAFE, safe), (FAST, fast))
    }
    return Comparison(
        weights=sum(one.size for one in rows[SAFE]),
        differing=sum(int((a != b).sum()) for a, b in zip(rows[SAFE], rows[FAST], strict=True)),
        saturating={name: sum(map(saturating_pairs, every)) for name, every in rows.items()},
        nodes_differ=len(safe.placement.nodes ^ fast.placement.nodes),
        ranges_differ=sum(
            not np.array_equal(encoding.scale, fast.encodings[name].scale)
            for name, encoding in safe.encodings.items()
        ),
    )


def _rows(made: Quantised, site: WeightSite) -> Array:
    array = constant_array(made.model.graph.initializers[f"{site.value}_quantized"])
    if array is None:
        raise ValueError(f"{site.value} has no integers")
    return row_order(site, array.shape).rows(array)


def main() -> None:
    names = sys.argv[1:] or MODELS
    if wrong := set(names) - set(EVALUATIONS):
        sys.exit(f"{wrong.pop()} is not one of {', '.join(EVALUATIONS)}")
    print(f"{'':<20} {'weights':>10} {'differ':>7} {'saturating pairs':>26} {'nodes, ranges':>14}")
    print(f"{'':<20} {'':>10} {'':>7} {FAST:>16} {SAFE:>9} {'that differ':>14}")
    failed = False
    for name in names:
        evaluation = EVALUATIONS[name]()
        prepared, _ = prepare(fuse(load_model(evaluation.model))[0])
        found = compare(*(made_for(target, prepared, evaluation) for target in (SAFE, FAST)))
        print(
            f"{name:<20} {found.weights:>10,} {found.differing / found.weights:>7.1%} "
            f"{found.saturating[FAST]:>16,} {found.saturating[SAFE]:>9,} "
            f"{found.nodes_differ:>10}, {found.ranges_differ}",
            flush=True,
        )
        for problem in found.problems():
            failed = True
            print(f"  {problem}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
