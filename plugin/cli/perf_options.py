"""The options of ``perf``, and what they mean together.

Those that perf_analyzer has too mean what they mean there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trimton.core.errors import InputError
from trimton.plugin.cli.perf_flags import (
    ROUNDS,
    RULE_SPREAD_PCT,
    RULE_TRIALS,
    RULE_WINDOW_MS,
    WINDOW_S,
)

if TYPE_CHECKING:
    from trimton.perf.load.peak_search import Objective
    from trimton.perf.load.rounds import Level
    from trimton.perf.load.stability import StabilityRule
    from trimton.plugin.load_test import Measuring, Threshold

# The percentile that a peak keeps within the limit where none is given.
_PEAK_SHARE = 0.99


@dataclass(frozen=True)
class LoadOptions:
    """Which load (at most one kind is given), and the limits that end a search for more."""

    concurrency: str | None
    concurrency_range: str | None
    request_rate: str | None
    request_rate_range: str | None
    ramp: str | None
    replay: str | None
    request_intervals: str | None
    distribution: str
    peak: bool
    latency_threshold_ms: float | None
    max_error_pct: float | None
    peak_precision_pct: float
    max_connections: int

    def levels(self) -> Iterable[Level]:
        """The loads, checked; InputError names the option that is wrong."""
        from trimton.perf.formats.traces import read_intervals, read_trace
        from trimton.plugin.cli.load_levels import concurrency_levels, ramp_level, rate_levels

        given = self._given()
        if len(given) > 1:
            raise InputError(f"give one kind of load: {' or '.join(given)}, not both.")
        if self.ramp is not None:
            return [ramp_level(self.ramp)]
        if self.replay is not None:
            return [read_trace(Path(self.replay))]
        if self.request_intervals is not None:
            return [read_intervals(Path(self.request_intervals))]
        if self.request_rate is not None or self.request_rate_range is not None:
            return rate_levels(self.request_rate, self.request_rate_range, self.distribution)
        return concurrency_levels(self.concurrency, self.concurrency_range)

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
        return self.latency_threshold_ms is not None

    def threshold(self, percentile: float | None) -> Threshold | None:
        """``--latency-threshold``, for levels."""
        from trimton.plugin.load_test import Threshold

        if self.latency_threshold_ms is None:
            return None
        return Threshold(self.latency_threshold_ms, share_of(percentile))

    def objective(self, percentile: float | None) -> Objective | None:
        """The limits of ``--peak``; None without it. InputError where one is missing or wrong."""
        from trimton.perf.load.peak_search import Objective

        check_within("--latency-threshold", self.latency_threshold_ms, 1e-3, 3_600_000)
        if not self.peak:
            if self.max_error_pct is not None:
                raise InputError("--max-error-rate is for --peak.")
            return None
        if self.latency_threshold_ms is None:
            raise InputError("--peak needs the limit to keep: --latency-threshold MS.")
        check_within("--max-error-rate", self.max_error_pct, 0, 100)
        check_within("--peak-precision", self.peak_precision_pct, 0.5, 100)
        return Objective(
            self.latency_threshold_ms,
            share_of(percentile) or _PEAK_SHARE,
            (self.max_error_pct or 0) / 100,
        )

    def _given(self) -> list[str]:
        options = {
            "--concurrency": self.concurrency,
            "--concurrency-range": self.concurrency_range,
            "--request-rate": self.request_rate,
            "--request-rate-range": self.request_rate_range,
            "--ramp": self.ramp,
            "--replay": self.replay,
            "--request-intervals": self.request_intervals,
            "--peak": self.peak or None,
        }
        return [name for name, value in options.items() if value is not None]


@dataclass(frozen=True)
class MeasureOptions:
    """How each level is measured."""

    rounds: int | None
    window_s: float | None
    warmup: str
    interval_ms: int | None
    spread_pct: float | None
    trials_max: int | None
    percentile: float | None
    request_count: int | None
    seed: int

    def measuring(self, *, runs_once: bool, percentile_is_for_limit: bool) -> Measuring:
        """The settings, checked; InputError names the option that is wrong."""
        from trimton.plugin.load_test import Measuring

        check_within("--rounds", self.rounds, 1, 10_000)
        check_within("--window", self.window_s, 1e-3, 3600)
        check_within("--measurement-interval", self.interval_ms, 1, 3_600_000)
        check_within("--request-count", self.request_count, 1, 100_000_000)
        check_within("--seed", self.seed, 0, 2**63)
        rule = self._rule(percentile_is_for_limit)
        if rule is not None and (self.rounds is not None or self.window_s is not None):
            raise InputError(
                "--rounds and --window are for fixed rounds; with --measurement-interval, "
                "--stability-percentage, --max-trials or --percentile windows are repeated until "
                "three agree: give one or the other."
            )
        if self.request_count is not None and self.window_s is not None:
            raise InputError("give --window or --request-count, not both.")
        once = runs_once or self.request_count is not None
        window_s = (self.interval_ms or RULE_WINDOW_MS) / 1000 if rule else self.window_s
        return Measuring(
            rounds=self.rounds or (1 if once else ROUNDS),
            window_s=WINDOW_S if window_s is None else window_s,
            warmup_s=self._warmup_s(),
            rule=rule,
            request_count=self.request_count,
            seed=self.seed,
        )

    def _rule(self, percentile_is_for_limit: bool) -> StabilityRule | None:
        from trimton.perf.load.stability import StabilityRule

        check_within("--stability-percentage", self.spread_pct, 0.1, 1000)
        check_within("--max-trials", self.trials_max, 3, 10_000)
        share = share_of(self.percentile)
        asked = (self.interval_ms, self.spread_pct, self.trials_max)
        if asked == (None, None, None) and (share is None or percentile_is_for_limit):
            return None
        return StabilityRule(
            spread=(RULE_SPREAD_PCT if self.spread_pct is None else self.spread_pct) / 100,
            percentile=share,
            trials_max=self.trials_max or RULE_TRIALS,
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


def share_of(percentile: float | None) -> float | None:
    """``--percentile`` as a share; InputError unless it lies between 0 and 100."""
    if percentile is None:
        return None
    if not 0 < percentile < 100:
        raise InputError(f"--percentile must lie between 0 and 100, not {percentile:g}.")
    return percentile / 100


def check_within(option: str, value: float | None, low: float, high: float) -> None:
    """Raise InputError for a ``value`` of ``option`` outside its bounds; None is no value."""
    if value is not None and not low <= value <= high:
        raise InputError(f"{option} must lie between {low:g} and {high:g}, not {value:g}.")
