"""``trimton repository``: what serves in repositories, since when, and on which verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimton.plugin.cli.output import JsonOption, console, print_json

if TYPE_CHECKING:
    from trimton.plugin.overview import ModelOverview
    from trimton.plugin.promotion.journal import Change


def command(
    repositories: Annotated[
        list[Path], typer.Argument(metavar="REPO...", help="Repositories of one server.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this model (can be given several times)."),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Show every change that the journal tells of.")
    ] = False,
    digests: Annotated[
        bool, typer.Option("--digests", help="Show SHA-256 of configurations and versions.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List models: versions, which of them serve, since when and on which verdict.

    Exit code 1 if there is a model that a server would not load.

    Example: trimton repository models --model net --history
    """
    from trimton.core.errors import EXIT_FAIL
    from trimton.plugin.overview import overview

    found = overview(repositories, model or (), digests=digests)
    if json:
        print_json({"models": [_facts(entry) for entry in found]})
    else:
        for entry in found:
            _show(entry, history=history)
    if any(entry.problem for entry in found):
        raise typer.Exit(EXIT_FAIL)


def _facts(entry: ModelOverview) -> dict[str, Any]:
    return {
        "repository": str(entry.repository),
        "model": entry.name,
        "versions": list(entry.versions),
        "served": list(entry.served),
        "ensemble_of": list(entry.parts),
        "problem": entry.problem,
        "digests": entry.digests,
        "changes": [change.model_dump(mode="json") for change in entry.changes],
    }


def _show(entry: ModelOverview, *, history: bool) -> None:
    if entry.problem:
        line = f"{entry.name}: {entry.problem}"
    else:
        line = f"{entry.name}: serves {_numbers(entry.served)} of {_numbers(entry.versions)}"
        line += f", an ensemble of {', '.join(entry.parts)}" if entry.parts else ""
        last = entry.last_change
        line += f", since {last.time[:19]} ({_why(last)})" if last else ""
    console().print(line, soft_wrap=True)
    for change in entry.changes if history else ():
        moved = f"{_numbers(change.before)} -> {_numbers(change.after)}"
        console().print(
            f"  {change.time[:19]}  {change.action:<8}  {moved:<12}  {change.phase:<9}  "
            f"{change.by}  {_why(change)}",
            soft_wrap=True,
        )
    for name, digest in (entry.digests or {}).items():
        console().print(f"  {name:<12}  {digest}", soft_wrap=True)


def _why(change: Change) -> str:
    details = change.details
    if run := details.get("run"):
        return f"{change.action}, {details.get('outcome')} of {run}"
    return f"{change.action}{': ' if details.get('reason') else ''}{details.get('reason', '')}"


def _numbers(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions)) or "none"
