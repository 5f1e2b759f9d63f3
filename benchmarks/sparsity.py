"""What zeros cost in quality and save in storage: magnitude, Wanda, compensated.

    python benchmarks/sparsity.py [--quick] [MODEL...]

For each model and pattern: the share of zeros among all weights, the weights' size after zlib as a
share of what it was, the quality (accuracy for fashion_resnet, agreement with the float model for
the others), and seconds. Last, the measured speed of a sparse model in ONNX Runtime beside its
dense original, to show that zeros are multiplied like any number. ``--quick`` takes 2:4 alone.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
from evaluation.catalogue import EVALUATIONS
from evaluation.evaluation import Evaluation, predictor

from trimton.transforms.fuse import fuse
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.save import save_model
from trimton.transforms.prune.cost_profile import speedup
from trimton.transforms.report import TransformReport
from trimton.transforms.sparsify import SparsifySettings, sparsify
from trimton.transforms.sparsify.settings import METHODS

MODELS = ("fashion_resnet", "efficientnet_lite0", "minilm_l3")
GOALS: tuple[Mapping[str, Any], ...] = (
    {"pattern": "2:4"},
    {"ratio": 0.5},
    {"ratio": 0.7},
)


def quality(found: Evaluation, model: ir.Model) -> float:
    """Percent of what the metric counts."""
    with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
        path = Path(folder) / "model.onnx"
        save_model(model, path)
        return 100 * found.quality(predictor(path))


def deflated(report: TransformReport) -> float:
    """The size of all weights after zlib, as a share of what it was."""
    sizes = next(
        step.detail["bytes"]
        for step in report.steps
        if step.name == "storage" and "zlib" in step.detail["how"]
    )
    return float(sizes["after"] / sizes["before"])


def zeros(model: ir.Model) -> float:
    """The share of zeros among all parameters."""
    tensors = [v.const_value for v in model.graph.initializers.values() if v.const_value]
    weights = [tensor.numpy() for tensor in tensors if tensor.dtype.is_floating_point()]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)


def table(name: str, goals: tuple[Mapping[str, Any], ...]) -> None:
    found = EVALUATIONS[name]()
    model, _ = fuse(load_model(found.model))
    samples = found.samples()
    print(f"\n{name}, {found.metric} {quality(found, model):.2f} % dense")
    print(f"{'goal':<8} {'method':<12} {'zeros':>6} {'zlib':>6} {'quality':>8} {'s':>5}")
    for goal in goals:
        for method in METHODS:
            start = time.perf_counter()
            sparse, report = sparsify(model, SparsifySettings(method=method, **goal), samples)
            seconds = time.perf_counter() - start
            asked = goal.get("pattern") or f"{goal['ratio']:.0%}"
            print(
                f"{asked:<8} {method:<12} {zeros(sparse):>6.1%} {deflated(report):>6.1%} "
                f"{quality(found, sparse):>8.2f} {seconds:>5.0f}",
                flush=True,
            )
    ratio = speedup(model, sparse, found.request)
    print(f"speed of the last in ONNX Runtime: {ratio:.2f} times that of the dense model")


def main() -> None:
    options = sys.argv[1:]
    names = [option for option in options if option != "--quick"] or list(MODELS)
    for name in names:
        if name not in EVALUATIONS:
            sys.exit(f"no model is named {name}; there are {', '.join(EVALUATIONS)}")
        table(name, GOALS[:1] if "--quick" in options else GOALS)


if __name__ == "__main__":
    main()
