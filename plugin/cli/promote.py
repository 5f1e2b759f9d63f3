"""``trimton promote``: put the variant that a run proved into service."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimton.plugin.cli.output import JsonOption, console, print_json

if TYPE_CHECKING:
    from trimton.plugin.promotion.confirm import ServerAnswer
    from trimton.plugin.promotion.promote import Promotion
    from trimton.plugin.rollout.trial import Trial

ServerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--server",
        metavar="HOST:PORT[,GRPC_PORT]",
        help="A server of the repository, to be told and asked (can be given several times). Over "
        "its HTTP port alone, other clients of HTTP wait while it loads.",
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", min=1, help="How long a server may take to load, or to look by itself."
    ),
]
HOW = {
    "told": "loaded it",
    "looked": "looked by itself and loaded it",
    "at_next_start": "does not load when told; it serves this after its next start or poll",
}


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a finished run.")],
    into: Annotated[
        list[Path] | None,
        typer.Option(
            "--into",
            metavar="REPO",
            help="The production repository; several are those of one server, and the one that "
            "has the model is used [default: the repository of the run's recipe].",
        ),
    ] = None,
    server: ServerOption = None,
    timeout: TimeoutOption = 120.0,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0,
            help="How far an answer may be from the recorded one, as a share of the output's "
            "largest value.",
        ),
    ] = 0.02,
    key_file: Annotated[
        Path | None,
        typer.Option(help="The key that signs proofs, for a model that the agent guards."),
    ] = None,
    valid_days: Annotated[float, typer.Option(help="How long these proofs hold.")] = 90.0,
    max_age_days: Annotated[float, typer.Option(help="How old a verdict may be.")] = 30.0,
    force: Annotated[
        str | None,
        typer.Option(
            metavar="REASON",
            help="Promote without a pass, with an old verdict, or what was rolled back; the "
            "journal keeps the reason.",
        ),
    ] = None,
    canary: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT,...",
            help="First mirror rising shares of recorded requests to both versions on the first "
            "--server, such as 5,25,100; go on only while the new one is as fast.",
        ),
    ] = None,
    hold: Annotated[
        str, typer.Option(metavar="TIME", help="How long each share is held: 60s, 5m, 1h.")
    ] = "60s",
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="RPS",
            help="Requests per second that 100 % stand for [default: a fifth of what the version "
            "in service answers one at a time].",
        ),
    ] = None,
    max_regression_pct: Annotated[
        float, typer.Option(help="How much higher the canary's latency may be.")
    ] = 5.0,
    json: JsonOption = False,
) -> None:
    """Put the candidate of a run into service: a new version, and the version policy moved to it.

    Only a verdict that is a pass promotes, and only while the baseline that it was measured against
    is in service; exit code 1 otherwise. The version that served stays in the repository. A server
    that is named is told to load, waited for, and asked what the run asked; if it objects, what
    served before is put back. A kill at any instant leaves the old state or the new one.

    Example: trimton promote runs/net-20260101-120000 --server localhost:8000,8001
    """
    from trimton.core.errors import InputError
    from trimton.plugin.promotion.promote import PromotionTerms, promote
    from trimton.plugin.promotion.servers import RunningServer
    from trimton.plugin.proof import ProofTerms, read_key

    if force is not None and not force.strip():
        raise InputError("--force: needs a reason, which the journal keeps.")
    terms = PromotionTerms(
        servers=[RunningServer.parse(address, timeout) for address in server or ()],
        force=force,
        key=None if key_file is None else read_key(key_file),
        proof=ProofTerms(valid_days),
        max_age_days=max_age_days,
        tolerance=tolerance,
        trial=trial_of(canary, hold, rate, max_regression_pct, quiet=json),
    )
    done = promote(run, into or (), terms)
    if json:
        print_json(asdict(done))
    else:
        _show(done)


def trial_of(
    shares: str | None, hold: str, rate: float | None, max_regression_pct: float, *, quiet: bool
) -> Trial | None:
    """The canary that the options ask for; its steps are shown as they end unless ``quiet``."""
    from trimton.core.errors import InputError
    from trimton.plugin.rollout.canary import Step
    from trimton.plugin.rollout.plan import CanaryPlan, parse_hold, parse_shares
    from trimton.plugin.rollout.trial import Trial

    if shares is None:
        if rate is not None:
            raise InputError("--rate is for a canary; give --canary, too.")
        return None
    plan = CanaryPlan(parse_shares(shares), parse_hold(hold), rate, max_regression_pct)

    def show(step: Step) -> None:
        console().print(
            f"  canary at {step.share_pct:g} % ({step.rate_rps:.3g} requests/s, "
            f"{step.seconds:.0f} s, {step.rounds} rounds): {step.outcome}, {step.why}",
            soft_wrap=True,
        )

    return Trial(plan) if quiet else Trial(plan, show)


def show_servers(answers: tuple[ServerAnswer, ...], *, polled: bool) -> None:
    """One line for each server that was asked; how it goes on where none was."""
    for answer in answers:
        close = "" if answer.difference is None else f" (answers within {answer.difference:.1e})"
        console().print(f"  {answer.address} {HOW[answer.how]}{close}", soft_wrap=True)
    if not answers and polled:
        console().print(
            "  no server was told: one in mode poll looks by itself, one in mode explicit needs "
            "--server or a load request, one in mode none a restart",
            soft_wrap=True,
        )


def _show(done: Promotion) -> None:
    before, after = (", ".join(map(str, versions)) for versions in (done.before, done.after))
    if done.changed:
        console().print(f"promoted: {done.model} serves version {after} (before: {before})")
    else:
        console().print(f"in service already: {done.model} version {done.version}")
    for note in done.notes:
        console().print(f"  {note}", soft_wrap=True)
    show_servers(done.servers, polled=done.changed)
