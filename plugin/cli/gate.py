"""``trimton gate``: judge a finished run by a policy, for people and for pipelines."""

from __future__ import annotations

import json as json_module
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimton.core.errors import EXIT_FAIL, EXIT_INCONCLUSIVE, EXIT_PASS, InputError
from trimton.plugin.cli.output import JsonOption, console, print_json

if TYPE_CHECKING:
    from trimton.plugin.policy import PolicyFile

EXIT_CODES = {"pass": EXIT_PASS, "fail": EXIT_FAIL, "inconclusive": EXIT_INCONCLUSIVE}


def command(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="Directory of a finished run.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The policy file (YAML).")
    ] = None,
    env: Annotated[
        str | None,
        typer.Option("--env", metavar="NAME", help="The environment of the policy that applies."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check the policy file only; no run is needed.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Judge a finished run by a policy. Nothing is measured again.

    Exits with 0 (pass), 1 (fail) or 3 (inconclusive). Writes RUN/gate: verdict.json, which from
    then on is the verdict that promotes, junit.xml and summary.md. In a step of GitHub Actions it
    also annotates the job and adds to its summary.

    Example: trimton gate runs/net-20260101-120000 --policy policy.yaml --env production
    """
    from trimton.plugin.policy_file import load_policy

    if policy is None:
        raise InputError("--policy: is missing; name the policy file.")
    file = load_policy(policy)
    if check:
        _show_policy(policy, file, json=json)
        return
    if run is None:
        raise InputError("RUN is missing; give the directory of a finished run, or --check.")
    from trimton.perf.report.markdown import render_markdown
    from trimton.perf.report.table import render_table
    from trimton.plugin.annotations import append_summary, github_annotations, on_github
    from trimton.plugin.gating import gate
    from trimton.plugin.run_directory import GATE_FOLDER

    document = gate(run, file, policy, env)
    if json:
        print_json(json_module.loads(document.verdict.model_dump_json()))
    else:
        for part in render_table(document):
            console().print(part)
        console().print(f"verdict: {run / GATE_FOLDER}", soft_wrap=True)
    if on_github(os.environ):
        for line in github_annotations(document.verdict):
            print(line, file=sys.stderr if json else sys.stdout)
        append_summary(os.environ, render_markdown(document))
    raise typer.Exit(EXIT_CODES[document.verdict.outcome])


def _show_policy(path: Path, policy: PolicyFile, *, json: bool) -> None:
    facts: dict[str, Any] = {
        "policy": str(path),
        "limits": list(policy.limits),
        "models": list(policy.models),
        "environments": list(policy.environments),
    }
    if json:
        print_json(facts)
        return
    console().print(f"{path}: makes sense", soft_wrap=True)
    for name in ("limits", "models", "environments"):
        console().print(f"  {name:<13} {', '.join(facts[name]) or 'none'}", soft_wrap=True)
