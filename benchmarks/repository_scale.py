"""What Trimton's work on a repository takes as the repository grows.

Models with a configuration each; every tenth is an ensemble of the two before it. Medians of
several repetitions, with files that the operating system has in memory.

    python benchmarks/repository_scale.py [MODELS ...]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from promotion_runs import CONFIG, MODEL, write_model, write_run

from trimton.plugin.ensembles import memberships
from trimton.plugin.promotion.promote import promote
from trimton.plugin.promotion.rollback import roll_back
from trimton.plugin.repository import Repository, open_repository

REPETITIONS = 5


def write_models(folder: Path, models: int) -> None:
    """``models`` models beside the one that is promoted."""
    for number in range(models - 1):
        model = folder / f"model{number:05d}"
        (model / "1").mkdir(parents=True)
        if number % 10 == 9:
            steps = "".join(
                f'step {{ model_name: "model{number - back:05d}" model_version: -1 }}\n'
                for back in (2, 1)
            )
            config = f'platform: "ensemble"\nensemble_scheduling {{ {steps} }}\n'
        else:
            config = CONFIG
            (model / "1" / "model.onnx").write_bytes(b"model")
        (model / "config.pbtxt").write_text(config)
    write_model(folder / MODEL / "1" / "model.onnx", "original")
    (folder / MODEL / "config.pbtxt").write_text(CONFIG)


def median_ms(work: Callable[[], object]) -> float:
    """Milliseconds of ``work``."""
    taken = []
    for _ in range(REPETITIONS):
        started = time.perf_counter()
        work()
        taken.append(1e3 * (time.perf_counter() - started))
    return statistics.median(taken)


def median_promotion_ms(folder: Path, repository: Repository) -> float:
    """Milliseconds of a promotion; each is rolled back."""
    taken = []
    for number in range(REPETITIONS):
        run = write_run(folder / f"run{number}", repository)
        started = time.perf_counter()
        promote(run, [repository.path])
        taken.append(1e3 * (time.perf_counter() - started))
        roll_back([repository.path], MODEL)
    return statistics.median(taken)


def main() -> None:
    sizes = [int(text) for text in sys.argv[1:]] or [10, 100, 1000]
    print(f"{'milliseconds':28s}" + "".join(f"{size:>10d}" for size in sizes))
    rows: dict[str, list[float]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_models(folder / "models", size)
            repository = Repository(folder / "models")
            for what, work in {
                "list the models": repository.names,
                "open and find one": lambda p=repository.path: open_repository(p).model(MODEL),
                "read all configurations": lambda r=repository: list(r.models()),
                "find a model's ensembles": lambda r=repository: memberships(r, MODEL),
            }.items():
                rows.setdefault(what, []).append(median_ms(work))
            rows.setdefault("promote", []).append(median_promotion_ms(folder, repository))
    for what, figures in rows.items():
        print(f"{what:28s}" + "".join(f"{figure:10.1f}" for figure in figures))


if __name__ == "__main__":
    main()
