"""``trimton agent``: build the repository agent, make keys and proofs, ask what it would say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimton.plugin.cli.output import JsonOption, console, print_json

app = typer.Typer(
    no_args_is_help=True,
    help="Let a Triton server load proven models only: the repository agent and its proofs.",
)

RepositoryArgument = Annotated[Path, typer.Argument(help="The Triton model repository, a folder.")]
ModelArgument = Annotated[str, typer.Argument(help="Name of the model in it.")]
KeyOption = Annotated[Path, typer.Option(help="The key, a file made by 'trimton agent new-key'.")]


@app.command()
def build(
    into: Annotated[
        Path | None, typer.Option(help="Folder of agents [default: in the user's cache].")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Compile the agent with the system's C compiler; start a server with the folder it prints.

    Example: trimton agent build --into /opt/tritonserver/repoagents
    """
    from trimton.plugin.agent.build import agents_folder, build_agent

    folder = (into or agents_folder()).absolute()
    library = build_agent(folder)
    if json_output:
        print_json({"library": str(library), "repoagent_directory": str(folder)})
    else:
        screen = console()
        screen.print(f"built {library}", soft_wrap=True)
        screen.print(f"tritonserver --repoagent-directory={folder}", soft_wrap=True)


@app.command("new-key")
def new_key(
    file: Annotated[Path, typer.Argument(help="Where the key goes; must not exist.")],
    json_output: JsonOption = False,
) -> None:
    """Make a key. Who proves and every server that checks need it; nobody else may read it.

    Example: trimton agent new-key /etc/trimton/proof.key
    """
    from trimton.plugin import proof

    key_id = proof.new_key(file)
    if json_output:
        print_json({"key_file": str(file), "key_id": key_id})
    else:
        console().print(f"{file}: key {key_id}", soft_wrap=True)


@app.command()
def prove(
    run: Annotated[Path, typer.Argument(help="Directory of the run whose verdict is signed.")],
    repository: RepositoryArgument,
    model: ModelArgument,
    version: Annotated[int, typer.Argument(help="The version in it.", min=1)],
    key_file: KeyOption,
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder with the versions, where the configuration redirects to it."),
    ] = None,
    valid_days: Annotated[float, typer.Option(help="Days until the proof expires.")] = 90.0,
    instruction_set: Annotated[
        list[str] | None,
        typer.Option(
            help="What a processor must have to load it (can be given several times) "
            "[default: all that the run's machine had]."
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Sign that a version of a model is what a run judged: a variant that passed, or the baseline.

    Writes VERSION.proof.json beside the version. It covers every file of the version and the
    model's config.pbtxt, so prove last.

    Example: trimton agent prove runs/net-20260101-120000 models net 2 --key-file proof.key
    """
    from dataclasses import asdict

    from trimton.plugin import proof
    from trimton.plugin.repository import open_repository

    found = open_repository(repository).model(model)
    made = proof.prove_version(
        run,
        found,
        version,
        proof.read_key(key_file),
        folder=folder,
        terms=proof.ProofTerms(valid_days, instruction_set),
    )
    if json_output:
        print_json({**asdict(made), "path": str(made.path)})
        return
    screen = console()
    screen.print(f"proven: version {made.version} of {made.model} ({made.role})")
    screen.print(f"  proof    {made.path}", soft_wrap=True)
    screen.print(f"  policy   {made.policy}", soft_wrap=True)
    screen.print(f"  key      {made.key_id}")
    screen.print(f"  expires  {made.expires}")


@app.command()
def check(
    repository: RepositoryArgument,
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Models in it [default: all].")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="The key [default: what config.pbtxt names].")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="Digest of the policy to insist on [default: as in config.pbtxt]."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Say what the agent would answer on this machine, and which models bypass it.

    Exit code 1 if it would veto one, or would not be asked about it.

    Example: trimton agent check models --key-file proof.key
    """
    from trimton.core.errors import EXIT_FAIL
    from trimton.plugin import proof
    from trimton.plugin.repository import open_repository

    opened = open_repository(repository)
    answers = []
    for name in models or opened.names():
        try:
            text = proof.check_model(opened.model(name), key_file=key_file, policy=policy)
            answers.append({"model": name, "proven": True, "answer": text})
        except proof.UnprovenModelError as error:
            answers.append({"model": name, "proven": False, "answer": str(error)})
    if json_output:
        print_json({"models": answers})
    else:
        for answer in answers:
            mark = "proven  " if answer["proven"] else "UNPROVEN"
            console().print(f"{mark}  {answer['model']}: {answer['answer']}", soft_wrap=True)
    if not all(answer["proven"] for answer in answers):
        raise typer.Exit(EXIT_FAIL)
