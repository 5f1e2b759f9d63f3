"""How ``perf`` measures, and the files that it writes: its options, and what they mean together.

Those that perf_analyzer has too mean what they mean there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimton.core.errors import InputError
from trimton.plugin.cli.bounds import check_within, share_of

if TYPE_CHECKING:
    from trimton.perf.load.stability import StabilityRule
    from trimton.plugin.load_test import Measuring

ROUNDS = 5
WINDOW_S = 2.0
# What perf_analyzer's rule uses where an option is not given.
RULE_WINDOW_MS = 5000
RULE_SPREAD_PCT = 10.0
RULE_TRIALS = 10
_MEASURE = "Measurement"
_FILES = "Files"


@dataclass(frozen=True)
class MeasureOptions:
    """How each level is measured."""

    rounds: Annotated[
        int | None,
        typer.Option(
            help=f"Windows at each level (default {ROUNDS}; 1 for a ramp, a replay or a number of "
            "requests).",
            rich_help_panel=_MEASURE,
        ),
    ] = None
    window: Annotated[
        float | None,
        typer.Option(
            help=f"Seconds of one window (default {WINDOW_S:g}).", rich_help_panel=_MEASURE
        ),
    ] = None
    request_count: Annotated[
        int | None,
        typer.Option(help="Requests to send, instead of a time.", rich_help_panel=_MEASURE),
    ] = None
    warmup: Annotated[
        str,
        typer.Option(
            metavar="SECONDS|auto",
            help="Load before each window; auto finds when the latency becomes steady.",
            rich_help_panel=_MEASURE,
        ),
    ] = "0.5"
    measurement_interval: Annotated[
        int | None,
        typer.Option(
            "--measurement-interval",
            "-p",
            metavar="MS",
            help="perf_analyzer's rule instead of rounds: windows of this length (default "
            f"{RULE_WINDOW_MS}) until three agree.",
            rich_help_panel=_MEASURE,
        ),
    ] = None
    stability_percentage: Annotated[
        float | None,
        typer.Option(
            "--stability-percentage",
            "-s",
            help=f"The rule's tolerance (default {RULE_SPREAD_PCT:g}).",
            rich_help_panel=_MEASURE,
        ),
    ] = None
    max_trials: Annotated[
        int | None,
        typer.Option(
            "--max-trials",
            "-r",
            help=f"The rule's most windows (default {RULE_TRIALS}).",
            rich_help_panel=_MEASURE,
        ),
    ] = None
    percentile: Annotated[
        float | None,
        typer.Option(
            help="The latency that the rule and the threshold look at, instead of the mean.",
            rich_help_panel=_MEASURE,
        ),
    ] = None

    def measuring(self, *, seed: int, runs_once: bool, percentile_is_for_limit: bool) -> Measuring:
        """The settings, checked; InputError names the option that is wrong."""
        from trimton.plugin.load_test import Measuring

        check_within("--rounds", self.rounds, 1, 10_000)
        check_within("--window", self.window, 1e-3, 3600)
        check_within("--measurement-interval", self.measurement_interval, 1, 3_600_000)
        check_within("--request-count", self.request_count, 1, 100_000_000)
        check_within("--seed", seed, 0, 2**63)
        rule = self._rule(percentile_is_for_limit)
        if rule is not None and (self.rounds is not None or self.window is not None):
            raise InputError(
                "--rounds and --window are for fixed rounds; with --measurement-interval, "
                "--stability-percentage, --max-trials or --percentile windows are repeated until "
                "three agree: give one or the other."
            )
        if self.request_count is not None and self.window is not None:
            raise InputError("give --window or --request-count, not both.")
        once = runs_once or self.request_count is not None
        window_s = (self.measurement_interval or RULE_WINDOW_MS) / 1000 if rule else self.window
        return Measuring(
            rounds=self.rounds or (1 if once else ROUNDS),
            window_s=WINDOW_S if window_s is None else window_s,
            warmup_s=self._warmup_s(),
            rule=rule,
            request_count=self.request_count,
            seed=seed,
        )

    def _rule(self, percentile_is_for_limit: bool) -> StabilityRule | None:
        from trimton.perf.load.stability import StabilityRule

        check_within("--stability-percentage", self.stability_percentage, 0.1, 1000)
        check_within("--max-trials", self.max_trials, 3, 10_000)
        share = share_of(self.percentile)
        asked = (self.measurement_interval, self.stability_percentage, self.max_trials)
        if asked == (None, None, None) and (share is None or percentile_is_for_limit):
            return None
        return StabilityRule(
            spread=(self.stability_percentage or RULE_SPREAD_PCT) / 100,
            percentile=share,
            trials_max=self.max_trials or RULE_TRIALS,
        )

    def _warmup_s(self) -> float | None:
        if self.warmup == "auto":
            return None
        try:
            seconds = float(self.warmup)
        except ValueError:
            raise InputError(f"--warmup {self.warmup}: give seconds, or auto.") from None
        check_within("--warmup", seconds, 0, 3600)
        return seconds


@dataclass(frozen=True)
class FileOptions:
    """Files to write beside what is printed."""

    latency_report_file: Annotated[
        Path | None,
        typer.Option(
            "--latency-report-file",
            "-f",
            metavar="FILE.csv",
            help="Write perf_analyzer's CSV, with columns of our own after its.",
            rich_help_panel=_FILES,
        ),
    ] = None
    profile_export_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Write every request with its times, as perf_analyzer does.",
            rich_help_panel=_FILES,
        ),
    ] = None
    save_trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the arrivals of the first window, for --replay.",
            rich_help_panel=_FILES,
        ),
    ] = None
