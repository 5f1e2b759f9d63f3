"""What ``doctor`` says of a repository: what loads without a proof although it is guarded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import typer

from trimton.core.errors import EXIT_FAIL
from trimton.plugin.agent.bypasses import repository_bypasses, server_bypasses
from trimton.plugin.cli.output import console, print_json
from trimton.plugin.repository import open_repository
from trimton.plugin.server.control import ControlClient


def diagnose(path: Path, server: str | None, *, as_json: bool) -> None:
    """Print every bypass of the agent; exit code 1 if there is one."""
    from trimton.perf.targets.address import Address

    repository = open_repository(path)
    found = list(repository_bypasses(repository))
    if server is not None:
        found.extend(server_bypasses(ControlClient(str(Address.parse(server))), repository))
    if as_json:
        print_json(
            {
                "repository": str(path),
                "models": len(repository.names()),
                "bypasses": [asdict(bypass) for bypass in found],
            }
        )
    else:
        _show(path, len(repository.names()), [(b.model or "any model", b.reason) for b in found])
    if found:
        raise typer.Exit(EXIT_FAIL)


def _show(path: Path, models: int, found: Sequence[tuple[str, str]]) -> None:
    screen = console()
    for model, reason in found:
        screen.print(f"UNGUARDED  {model}: {reason}", soft_wrap=True)
    if not found:
        screen.print(f"{path}: the agent is asked about all models ({models})", soft_wrap=True)
