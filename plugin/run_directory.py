"""Run directories: ``runs/<model>-<time>/``, one for each run of the main job."""

from __future__ import annotations

import datetime
from pathlib import Path

VERDICT_NAME = "verdict.json"
RECIPE_NAME = "recipe.yaml"
MEASUREMENTS_NAME = "measurements.json"
GATE_FOLDER = "gate"
RECORDED_FOLDER = "recorded"


def verdict_file(run: Path) -> Path:
    """The verdict that counts: that of the last ``trimton gate``, else the run's own."""
    gated = run / GATE_FOLDER / VERDICT_NAME
    return gated if gated.exists() else run / VERDICT_NAME


def new_run_directory(runs: Path, model: str, now: datetime.datetime | None = None) -> Path:
    """A path that is not there yet; nothing is created."""
    stamp = (now or datetime.datetime.now()).strftime("%Y%m%d-%H%M%S")
    path = runs / f"{model}-{stamp}"
    number = 1
    while path.exists():
        number += 1
        path = runs / f"{model}-{stamp}-{number}"
    return path


def unfinished_run(runs: Path, model: str) -> Path | None:
    """The newest run directory of ``model`` that has no verdict; None if there is none."""
    candidates = [
        path
        for path in runs.glob(f"{model}-[0-9]*")
        if (path / RECIPE_NAME).exists() and not (path / VERDICT_NAME).exists()
    ]
    return max(candidates, key=lambda path: (path / RECIPE_NAME).stat().st_mtime_ns, default=None)
