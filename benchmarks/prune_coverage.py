"""Prune half of all channels, and print how much goes, beside what uniform halving would leave.

    python benchmarks/prune_coverage.py [--onnxsim] [NAME...]

First the topologies, one for each way in which channels can be tied, then real models. "off" is
the largest difference, relative to an output's largest value, between the original that ignores
the removed channels and the cut model, on random inputs. Exit code 1 if a topology reaches less
than 95 % of the ideal, or if a model is off by more than 1e-4; where a normalisation runs over
removed channels the two differ by intent, which is marked with *. --onnxsim adds the share of
parameters that onnxsim's structured pruning removes. Packages are downloaded once into the user's
cache.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir
from evaluation import efficientnet
from onnxsim_pruning import parameters_left
from prune_topologies import TOPOLOGIES
from real_models import RealModel, light_model, light_names, packaged_models

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.probe import compare_outputs, random_probes
from trimton.transforms.prune import PruneSettings, masked_and_cut, prunable
from trimton.transforms.report import ModelCost

HALF = PruneSettings(ratio=0.5, multiple=1)
LIMIT = 1e-4
LEAST_COVERAGE = 0.95


def removed(before: ModelCost, after: ModelCost) -> tuple[float, float | None]:
    """The shares of parameters and of multiply-accumulates that are gone."""
    parameters = 1 - after.parameters / before.parameters
    if not before.macs or after.macs is None:
        return parameters, None
    return parameters, 1 - after.macs / before.macs


def cut_in_half(model: ir.Model) -> tuple[ModelCost, float, bool]:
    """The cost after the cut, how far it is off, and whether it is so by intent."""
    masked, cut = masked_and_cut(model, HALF)
    off = compare_outputs(cut, random_probes(masked))[0].relative
    is_intended = any(group.shares_statistics for group in prunable(model).groups)
    return model_cost(cut), off, is_intended


def topologies(wanted: set[str], beside_onnxsim: bool) -> Iterator[bool]:
    """Print the first table; yields whether each row holds."""
    rival = "  onnxsim: parameters gone" if beside_onnxsim else ""
    print(f"{'topology':<24} {'parameters gone':>22} {'MACs gone':>22} {'off':>9}{rival}")
    print(f"{'':<24} {'here':>6} {'ideal':>7} {'share':>7} {'here':>6} {'ideal':>7} {'share':>7}")
    for name, build in TOPOLOGIES.items():
        if wanted and name not in wanted:
            continue
        original = build(1.0)
        before = model_cost(original)
        ideal = removed(before, model_cost(build(0.5)))
        cost, off, is_intended = cut_in_half(original)
        here = removed(before, cost)
        shares = [(a or 0) / (b or 1) for a, b in zip(here, ideal, strict=True)]
        columns = " ".join(
            f"{(a or 0):>6.1%} {(b or 0):>7.1%} {share:>7.1%}"
            for a, b, share in zip(here, ideal, shares, strict=True)
        )
        text = f"{name:<24} {columns} {off:>9.1e}{'*' if is_intended else ' '}"
        if beside_onnxsim:
            gone = 1 - parameters_left(original) / before.parameters
            text += f" {gone:>7.1%}, {gone / (ideal[0] or 1):.1%} of the ideal"
        print(text, flush=True)
        yield min(shares) >= LEAST_COVERAGE and (is_intended or off <= LIMIT)


def models() -> Iterator[RealModel]:
    """All models of the second table."""
    for name in light_names():
        yield light_model(name)
    path = efficientnet.efficientnet_lite0()
    yield RealModel(efficientnet.REQUIREMENT, path.stem, load_model(path))
    yield from packaged_models()


def real_models(wanted: set[str]) -> Iterator[bool]:
    """Print the second table; yields whether each row holds."""
    print(
        f"\n{'model':<32} {'MB':>6} {'groups':>6} {'params':>7} {'MACs':>7} {'off':>9} {'s':>6}"
        f"  most frequent reason for keeping a layer"
    )
    for real in models():
        if wanted and real.name not in wanted:
            continue
        start = time.perf_counter()
        before = model_cost(real.model)
        found = prunable(real.model)
        seconds = time.perf_counter() - start
        size_mb = before.size_bytes / 1e6
        head = f"{real.name:<32} {size_mb:>6.1f} {len(found.groups):>6}"
        kept = Counter(layer.why for layer in found.frozen).most_common(1)
        why = f"{kept[0][0]} ({kept[0][1]})" if kept else ""
        try:
            cost, off, is_intended = cut_in_half(real.model)
        except UnsupportedModelError:
            print(f"{head} {'':>31} {seconds:>6.1f}  {why or 'no layer outside control flow'}")
            continue
        parameters, macs = removed(before, cost)
        text = "?" if macs is None else f"{macs:.1%}"
        mark = "*" if is_intended else " "
        print(f"{head} {parameters:>7.1%} {text:>7} {off:>9.1e}{mark}{seconds:>6.1f}  {why}")
        sys.stdout.flush()
        yield is_intended or off <= LIMIT


def main() -> None:
    arguments = set(sys.argv[1:])
    wanted = arguments - {"--onnxsim"}
    holds = [*topologies(wanted, "--onnxsim" in arguments), *real_models(wanted)]
    if not all(holds):
        sys.exit(f"{holds.count(False)} rows do not hold")
    print(f"\nall rows hold: at least {LEAST_COVERAGE:.0%} of the ideal, off by at most {LIMIT:g}")


if __name__ == "__main__":
    main()
