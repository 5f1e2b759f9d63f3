"""Print how well the float models do on the data of the benchmarks.

    python benchmarks/evaluate_models.py [NAME...]

Models and data come from packages, into the user's cache. "agreement" is with the float model
itself, so it must read 1.
"""

from __future__ import annotations

import sys

from evaluation.catalogue import EVALUATIONS
from evaluation.evaluation import predictor


def main() -> None:
    names = sys.argv[1:] or list(EVALUATIONS)
    if unknown := set(names) - set(EVALUATIONS):
        sys.exit(f"no model is named {unknown.pop()}; there are {', '.join(EVALUATIONS)}")
    print(f"{'model':<20} {'metric':<16} {'float':>7}  inputs")
    for name in names:
        found = EVALUATIONS[name]()
        shapes = ", ".join(f"{k} {list(v.shape)}" for k, v in found.request.items())
        score = found.quality(predictor(found.model))
        print(f"{name:<20} {found.metric:<16} {score:>7.4f}  {shapes}", flush=True)


if __name__ == "__main__":
    main()
