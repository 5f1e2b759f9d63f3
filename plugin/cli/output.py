"""What commands print: tables for people, one JSON object for machines, progress on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
)

PIPE_WIDTH = 110  # columns of tables where there is no terminal to ask

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, for machines.")
]


def console() -> Console:
    """Standard output for people; without colours, and of a fixed width, in a pipe."""
    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def print_json(payload: Mapping[str, Any]) -> None:
    """Print ``payload`` as the one JSON object of ``--json``."""
    sys.stdout.write(json.dumps(payload, indent=2, allow_nan=False) + "\n")


def progress(*more: ProgressColumn) -> Progress:
    """A progress display on standard error; silent where that is no terminal.

    ``more`` are columns behind those that all commands have.
    """
    screen = Console(stderr=True)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        *more,
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
