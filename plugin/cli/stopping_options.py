"""How long ``compare`` goes on: its options, and what they mean together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from trimton.core.errors import InputError
from trimton.plugin.cli.bounds import check_within

# One for the rate and one for the tail: in a closed loop the others follow these two. By schedule
# the rate is given.
ASKED = ("throughput_rps", "latency_p95_ms")
ASKED_BY_SCHEDULE = ("latency_mean_ms", "latency_p95_ms")
ROUNDS_MAX = 30


@dataclass(frozen=True)
class StoppingOptions:
    """Exactly so many rounds; or until all is answered, within limits."""

    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Go on until this metric's answer is clear (repeatable; default "
            f"{' and '.join(ASKED)}; at a rate {' and '.join(ASKED_BY_SCHEDULE)}).",
        ),
    ] = None
    max_rounds: Annotated[
        int | None,
        typer.Option(
            help="The most windows for each variant at each level, interleaved "
            f"(default {ROUNDS_MAX})."
        ),
    ] = None
    budget: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="The most time for the load.")
    ] = None
    rounds: Annotated[
        int | None,
        typer.Option(help="Exactly so many windows, instead of stopping when the answer is clear."),
    ] = None
    window: Annotated[float, typer.Option(help="Seconds that one window measures.")] = 2.0
    warmup: Annotated[float, typer.Option(help="Seconds of load before each window.")] = 0.5
    margin: Annotated[
        float, typer.Option(help="Differences up to this percentage count as equivalent.")
    ] = 3.0

    def check(self) -> None:
        """Raise InputError for the option that is wrong."""
        from trimton.perf.stats.metrics import METRICS

        if self.rounds is not None and (self.max_rounds or self.budget or self.metric):
            raise InputError(
                "--rounds fixes how much is measured; leave out --max-rounds, --budget and "
                "--metric."
            )
        for option, rounds in {"--rounds": self.rounds, "--max-rounds": self.max_rounds}.items():
            if rounds is not None and rounds < 1:
                raise InputError(f"{option} must be at least 1, not {rounds}.")
        if self.budget is not None and not self.budget > 0:
            raise InputError(f"--budget must be more than 0 s, not {self.budget:g}.")
        if unknown := set(self.metric or ()) - METRICS.keys():
            raise InputError(f"--metric {min(unknown)} is none of {', '.join(METRICS)}.")
        if not 0 <= self.margin < 100:
            raise InputError(f"--margin is a percentage from 0 to below 100, not {self.margin:g}.")
        check_within("--window", self.window, 1e-3, 3600)
        check_within("--warmup", self.warmup, 0, 3600)

    @property
    def most_rounds(self) -> int:
        """How many rounds there are at most."""
        return self.rounds or self.max_rounds or ROUNDS_MAX

    def metrics(self, *, by_schedule: bool) -> tuple[str, ...]:
        """What must be clear."""
        usual = ASKED_BY_SCHEDULE if by_schedule else ASKED
        return tuple(dict.fromkeys(self.metric or usual))
