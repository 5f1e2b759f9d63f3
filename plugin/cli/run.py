"""``trimton run``: the main job, from a recipe to a verdict."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimton.core.errors import EXIT_FAIL, EXIT_INCONCLUSIVE, EXIT_PASS, InputError
from trimton.plugin.cli.output import JsonOption, console, print_json, progress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

EXIT_CODES = {"pass": EXIT_PASS, "fail": EXIT_FAIL, "inconclusive": EXIT_INCONCLUSIVE}


def command(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe file (YAML).")],
    runs: Annotated[
        Path, typer.Option(metavar="DIR", help="Where run directories are made.")
    ] = Path("runs"),
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the newest run of this model that has no verdict."),
    ] = False,
    run_directory: Annotated[
        Path | None,
        typer.Option(
            "--run-dir", metavar="DIR", help="Use this run directory; continue what is in it."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make the recipe's variants, serve and load them on a real Triton, and judge the candidate.

    Exits with 0 (pass), 1 (fail) or 3 (inconclusive). A run that was killed goes on where it
    stopped with --resume; no finished stage is repeated.

    Example: trimton run recipes/fashion_resnet.yaml
    """
    from trimton.perf.report.table import render_table
    from trimton.plugin.pipeline import run_recipe
    from trimton.plugin.recipe_file import load_recipe
    from trimton.plugin.run_directory import new_run_directory, unfinished_run

    model = load_recipe(recipe).model.name
    directory = run_directory
    if directory is None and resume:
        directory = unfinished_run(runs, model)
        if directory is None:
            raise InputError(f"{runs}: holds no unfinished run of {model!r} to resume.")
    directory = directory or new_run_directory(runs, model)
    with progress() as shown:
        document = run_recipe(recipe, directory, _Shown(shown))
    if json:
        print_json(json_module.loads(document.verdict.model_dump_json()))
    else:
        for part in render_table(document):
            console().print(part)
        console().print(f"report: {directory / 'report.html'}", soft_wrap=True)
    raise typer.Exit(EXIT_CODES[document.verdict.outcome])


class _Shown:
    """One line of progress for each stage; finished ones disappear."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._stage = ""
        self._task: TaskID | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage or self._task is None:
            if self._task is not None:
                self._shown.remove_task(self._task)
            self._task = self._shown.add_task(stage, total=total or None)
            self._stage = stage
        self._shown.update(self._task, completed=done, total=total or None)
