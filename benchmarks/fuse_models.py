"""Fuse real models, and print what remains and how far the outputs moved.

    python benchmarks/fuse_models.py [NAME...]

Every model is fused, saved (which validates it in ONNX and in ONNX Runtime), loaded again, and
compared with the original on random inputs. Exit code 1 if one is refused, or if an output moves
by more than 1e-4 of its largest value. Packages are downloaded once into the user's cache.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from real_models import RealModel, light_model, light_names, packaged_models

from trimton.core.errors import TrimtonError
from trimton.transforms.fuse import fuse
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.probe import compare_outputs, random_probes
from trimton.transforms.graph.save import save_model

LIMIT = 1e-4


def models() -> Iterator[RealModel]:
    """All models of the table."""
    for name in light_names():
        yield light_model(name)
    yield from packaged_models()


def row(real: RealModel, folder: Path) -> tuple[str, bool]:
    """One line of the table, and whether it holds what ``fuse`` promises."""
    start = time.perf_counter()
    try:
        fused, report = fuse(real.model)
    except TrimtonError as error:
        return f"{real.name:<32} refused: {error}", False
    seconds = time.perf_counter() - start
    path = folder / "model.onnx"
    save_model(fused, path)
    worst = compare_outputs(load_model(path), random_probes(real.model))[0].relative
    before, after = report.before, report.after
    text = (
        f"{real.name:<32} {real.model.opset_imports['']:>5} {before.nodes:>6} {after.nodes:>6} "
        f"{before.size_bytes / 1e6:>8.1f} {after.size_bytes / 1e6:>8.1f} {worst:>9.1e} "
        f"{seconds:>6.1f}"
    )
    return text, worst <= LIMIT


def main() -> None:
    wanted = set(sys.argv[1:])
    print(
        f"{'model':<32} {'opset':>5} {'nodes':>6} {'fused':>6} {'MB':>8} {'fused':>8} "
        f"{'moved':>9} {'s':>6}"
    )
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
        for real in models():
            if wanted and real.name not in wanted:
                continue
            text, holds = row(real, Path(folder))
            print(text, flush=True)
            if not holds:
                failed.append(real.name)
    if failed:
        sys.exit(f"does not hold for: {', '.join(failed)}")
    print(f"all valid, none refused, every output within {LIMIT:g} of its largest value")


if __name__ == "__main__":
    main()
