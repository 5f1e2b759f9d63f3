"""Which load: options of ``perf`` and ``compare``, and what they mean together.

Those that perf_analyzer has too mean what they mean there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimton.core.errors import InputError
from trimton.plugin.cli.bounds import check_within, share_of

if TYPE_CHECKING:
    from trimton.perf.load.peak_search import Objective
    from trimton.perf.load.rounds import Level
    from trimton.plugin.load_test import Threshold

LOAD_PANEL = "Load"
# The percentile that a peak keeps within the limit where none is given.
_PEAK_SHARE = 0.99


@dataclass(frozen=True)
class LevelOptions:
    """Requests in flight, or a rate; at most one kind is given."""

    concurrency: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Requests in flight, one level each (default 1)."),
    ] = None
    concurrency_range: Annotated[
        str | None,
        typer.Option(metavar="START:END:STEP", help="The levels as a range, END included."),
    ] = None
    request_rate: Annotated[
        str | None,
        typer.Option(
            metavar="R,R,...",
            help="Requests per second by schedule, one level each; latency counts from the "
            "schedule.",
            rich_help_panel=LOAD_PANEL,
        ),
    ] = None
    request_rate_range: Annotated[
        str | None,
        typer.Option(
            metavar="START:END:STEP",
            help="Rates as a range, END included; END 0 with --latency-threshold: until it breaks.",
            rich_help_panel=LOAD_PANEL,
        ),
    ] = None
    request_distribution: Annotated[
        str,
        typer.Option(help="Arrivals at a rate: constant or poisson.", rich_help_panel=LOAD_PANEL),
    ] = "constant"

    def levels(self) -> Iterable[Level]:
        """The loads, checked; InputError names the option that is wrong."""
        from trimton.plugin.cli.load_levels import concurrency_levels, rate_levels

        given = self._given()
        if len(given) > 1:
            raise InputError(f"give one kind of load: {' or '.join(given)}, not both.")
        if self.request_rate is not None or self.request_rate_range is not None:
            return rate_levels(
                self.request_rate, self.request_rate_range, self.request_distribution
            )
        return concurrency_levels(self.concurrency, self.concurrency_range)

    def fixed_levels(self) -> tuple[Level, ...]:
        """The same; InputError for a range without END, too."""
        from trimton.plugin.cli.load_levels import Endless

        levels = self.levels()
        if isinstance(levels, Endless):
            [(option, text)] = self._given().items()
            raise InputError(f"{option} {text}: END must be given.")
        return tuple(levels)

    def _given(self) -> dict[str, object]:
        return {option: value for option, value in self._kinds().items() if value is not None}

    def _kinds(self) -> dict[str, object]:
        """What each option of a kind of load was given, None for nothing."""
        return {
            "--concurrency": self.concurrency,
            "--concurrency-range": self.concurrency_range,
            "--request-rate": self.request_rate,
            "--request-rate-range": self.request_rate_range,
        }


@dataclass(frozen=True)
class LoadOptions(LevelOptions):
    """The same, what ``perf`` alone can send, and the limits that end a search for more."""

    ramp: Annotated[
        str | None,
        typer.Option(
            metavar="START:END:SECONDS",
            help="A rate that rises linearly.",
            rich_help_panel=LOAD_PANEL,
        ),
    ] = None
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Replay a trace: one arrival on each line, in seconds.",
            rich_help_panel=LOAD_PANEL,
        ),
    ] = None
    request_intervals: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Replay gaps between requests: one on each line, in microseconds.",
            rich_help_panel=LOAD_PANEL,
        ),
    ] = None
    peak: Annotated[
        bool,
        typer.Option(
            "--peak",
            help="Search the highest Poisson rate that keeps --latency-threshold (at --percentile, "
            "default 99) and --max-error-rate.",
            rich_help_panel=LOAD_PANEL,
        ),
    ] = False
    latency_threshold: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="End a range at the first level whose latency is over this.",
            rich_help_panel=LOAD_PANEL,
        ),
    ] = None
    max_error_rate: Annotated[
        float | None,
        typer.Option(
            help="Percentage of requests that may fail in --peak (default 0).",
            rich_help_panel=LOAD_PANEL,
        ),
    ] = None
    peak_precision: Annotated[
        float,
        typer.Option(
            help="Percentage to which --peak tells the highest rate that holds from the next that "
            "does not.",
            rich_help_panel=LOAD_PANEL,
        ),
    ] = 3.0
    max_connections: Annotated[
        int,
        typer.Option(
            min=1,
            max=1000,
            help="Connections that a rate may open; a request that finds none free waits, and the "
            "wait is latency. Over HTTP, Triton may lose answers where more than some 270 are due "
            "at once.",
            rich_help_panel=LOAD_PANEL,
        ),
    ] = 256

    def levels(self) -> Iterable[Level]:
        """The loads, checked; InputError names the option that is wrong."""
        from trimton.perf.formats.traces import read_intervals, read_trace
        from trimton.plugin.cli.load_levels import ramp_level

        others = super().levels()
        if self.ramp is not None:
            return [ramp_level(self.ramp)]
        if self.replay is not None:
            return [read_trace(Path(self.replay))]
        if self.request_intervals is not None:
            return [read_intervals(Path(self.request_intervals))]
        return others

    @property
    def runs_once(self) -> bool:
        """A load with a length of its own is measured once unless rounds are asked for."""
        return any((self.ramp, self.replay, self.request_intervals))

    @property
    def is_by_schedule(self) -> bool:
        """Whether requests come by schedule, not when others are answered."""
        rates = (self.request_rate, self.request_rate_range)
        return self.runs_once or self.peak or any(rates)

    @property
    def has_limit(self) -> bool:
        """Whether a limit decides where the levels end."""
        return self.latency_threshold is not None

    def threshold(self, percentile: float | None) -> Threshold | None:
        """``--latency-threshold``, for levels."""
        from trimton.plugin.load_test import Threshold

        if self.latency_threshold is None:
            return None
        return Threshold(self.latency_threshold, share_of(percentile))

    def objective(self, percentile: float | None) -> Objective | None:
        """The limits of ``--peak``; None without it. InputError where one is missing or wrong."""
        from trimton.perf.load.peak_search import Objective

        check_within("--latency-threshold", self.latency_threshold, 1e-3, 3_600_000)
        if not self.peak:
            if self.max_error_rate is not None:
                raise InputError("--max-error-rate is for --peak.")
            return None
        if self.latency_threshold is None:
            raise InputError("--peak needs the limit to keep: --latency-threshold MS.")
        check_within("--max-error-rate", self.max_error_rate, 0, 100)
        check_within("--peak-precision", self.peak_precision, 0.5, 100)
        return Objective(
            self.latency_threshold,
            share_of(percentile) or _PEAK_SHARE,
            (self.max_error_rate or 0) / 100,
        )

    def _kinds(self) -> dict[str, object]:
        return super()._kinds() | {
            "--ramp": self.ramp,
            "--replay": self.replay,
            "--request-intervals": self.request_intervals,
            "--peak": self.peak or None,
        }
