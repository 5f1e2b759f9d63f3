"""``trimton rollback``: let a model serve what it served before."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trimton.plugin.cli.output import JsonOption, console, print_json
from trimton.plugin.cli.promote import ServerOption, TimeoutOption, show_servers


def command(
    repository: Annotated[
        Path, typer.Argument(metavar="REPO", help="The production repository, a folder.")
    ],
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model in it.")],
    to: Annotated[
        int | None,
        typer.Option(metavar="VERSION", help="Serve this version, not what served before."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; the journal keeps it.")] = "",
    server: ServerOption = None,
    timeout: TimeoutOption = 120.0,
    json: JsonOption = False,
) -> None:
    """Let a model serve what it served before its last promotion; once more goes back further.

    No version is deleted. What was taken out of service is not promoted again on the same run.

    Example: trimton rollback models net --server localhost:8000,8001 --reason "slow at noon"
    """
    from trimton.plugin.promotion.rollback import RollbackTerms, roll_back
    from trimton.plugin.promotion.servers import RunningServer

    servers = [RunningServer.parse(address, timeout) for address in server or ()]
    done = roll_back([repository], model, RollbackTerms(to, reason, servers))
    if json:
        print_json(asdict(done))
        return
    before, after = (", ".join(map(str, versions)) for versions in (done.before, done.after))
    if done.changed:
        console().print(f"rolled back: {done.model} serves version {after} (before: {before})")
    else:
        console().print(f"in service already: {done.model} version {after}")
    show_servers(done.servers, polled=done.changed)
