"""Which channels of fashion_resnet go, by each criterion, and what is right without them.

    python benchmarks/importance.py [--ratio R] [--images N] [--only NAME ...]

Half of every group's channels go by default, in blocks of 8, chosen on unlabelled images. Accuracy
is that on the 10,000 test images: with statistics of BatchNormalizations estimated anew, and with
the layers behind the cut refitted. Needs the extra ``distill``.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
from evaluation.catalogue import EVALUATIONS
from evaluation.evaluation import Evaluation, predictor

from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.save import save_model
from trimton.transforms.prune import PruneSettings, prune
from trimton.transforms.prune.importance import CRITERIA


def accuracy(evaluation: Evaluation, model: ir.Model) -> float:
    """Percent of the test images that ``model`` names rightly."""
    with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
        file = Path(folder) / "model.onnx"
        save_model(model, file)
        return 100 * evaluation.quality(predictor(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--images", type=int, default=128, help="of calibration, at most 128")
    parser.add_argument("--only", nargs="+", choices=tuple(CRITERIA), default=tuple(CRITERIA))
    options = parser.parse_args()
    evaluation = EVALUATIONS["fashion_resnet"]()
    model = load_model(evaluation.model)
    samples = {name: array[: options.images] for name, array in evaluation.samples().items()}
    print(f"fashion_resnet: {accuracy(evaluation, model):.2f} %, {options.images} images\n")
    print(f"{'importance':18} {'no refit':>9} {'refit':>7}")
    for name in options.only:
        plain = PruneSettings(ratio=options.ratio, importance=name, multiple=8, refit=False)
        found = [
            accuracy(evaluation, prune(model, settings, samples)[0])
            for settings in (plain, replace(plain, refit=True))
        ]
        print(f"{name:18} {found[0]:9.2f} {found[1]:7.2f}", flush=True)


if __name__ == "__main__":
    main()
