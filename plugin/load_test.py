"""One model under the loads that were asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from trimton.core.errors import InputError
from trimton.perf.load.arms import Arm, ServedArm
from trimton.perf.load.peak_search import (
    Objective,
    Peak,
    Trial,
    rate_trials,
    search_peak,
    starting_rate,
)
from trimton.perf.load.rounds import Level, measure_rounds
from trimton.perf.load.schedules import PoissonRate
from trimton.perf.load.stability import StabilityRule, is_stable, measure_until_stable
from trimton.perf.load.warmup import Warmup, find_warmup
from trimton.perf.measure.histogram import LatencyHistogram
from trimton.perf.results import LevelSummary, LoadWindow
from trimton.perf.stats.levels import summarise_levels

# Once a server is known to be warm, this much load settles the next window.
SETTLE_S = 0.5

OnWindow = Callable[[LoadWindow], None]


@dataclass(frozen=True)
class Measuring:
    """How each level is measured: ``rounds`` windows, or windows until ``rule`` is satisfied.

    ``warmup_s`` None finds the end of the warm-up first. ``request_count`` replaces the length of
    a window.
    """

    rounds: int
    window_s: float
    warmup_s: float | None
    rule: StabilityRule | None
    request_count: int | None
    seed: int


@dataclass(frozen=True)
class Threshold:
    """The latency that a level must stay within: its mean, or a percentile (a share)."""

    limit_ms: float
    percentile: float | None

    @property
    def name(self) -> str:
        """The latency that is looked at."""
        return "mean latency" if self.percentile is None else f"p{100 * self.percentile:g} latency"

    def latency_ms(self, windows: Iterable[LoadWindow]) -> float | None:
        """That latency over ``windows``; None where too few requests support it."""
        windows = list(windows)
        if self.percentile is None:
            requests = sum(window.requests for window in windows)
            return sum(w.latency_mean_ms * w.requests for w in windows) / requests
        parts = (LatencyHistogram.decode(window.latency_histogram) for window in windows)
        return LatencyHistogram.merged(parts).percentile_ms(self.percentile)


@dataclass(frozen=True)
class LoadTest:
    """What was measured: the windows that count, their levels, and what was found on the way."""

    windows: tuple[LoadWindow, ...]
    levels: tuple[LevelSummary, ...]
    warmup: Warmup | None = None
    peak: Peak | None = None
    notes: tuple[str, ...] = ()


def run_levels(
    arm: Arm,
    levels: Iterable[Level],
    measuring: Measuring,
    *,
    threshold: Threshold | None = None,
    on_window: OnWindow = lambda window: None,
) -> LoadTest:
    """Measure ``arm`` at ``levels``, which end early where one breaks the ``threshold``.

    Without threshold and rule the rounds of all levels are interleaved.
    """
    warmup, warmup_s = _warm(arm, next(iter(levels)), measuring)
    if threshold is None and measuring.rule is None:
        windows = _rounds(arm, list(levels), measuring, warmup_s, on_window)
        return LoadTest(windows, summarise_levels(windows, seed=measuring.seed), warmup)
    kept: list[LoadWindow] = []
    summaries: list[LevelSummary] = []
    note: tuple[str, ...] = ()
    for level in levels:
        windows, summary = _one_level(arm, level, measuring, warmup_s, on_window)
        kept.extend(windows)
        summaries.append(summary)
        if threshold is not None:
            latency_ms = threshold.latency_ms(windows)
            note = (_verdict(threshold, level, latency_ms),)
            if latency_ms is None or latency_ms > threshold.limit_ms:
                break
    return LoadTest(tuple(kept), tuple(summaries), warmup, notes=note)


def run_peak(
    arm: Arm,
    objective: Objective,
    measuring: Measuring,
    *,
    rate_max_rps: float,
    precision: float = 0.03,
    on_trial: Callable[[Trial], None] = lambda trial: None,
    on_window: OnWindow = lambda window: None,
) -> LoadTest:
    """Search the highest Poisson rate that keeps ``objective``, then measure at that rate."""
    if not isinstance(arm, ServedArm):
        raise InputError(
            "--peak searches a request rate, which needs a server: give a model folder, or a "
            "served model with --url."
        )
    warmup, warmup_s = _warm(arm, 1, measuring)
    peak = search_peak(
        rate_trials(arm, objective, warmup_s=min(warmup_s, SETTLE_S), seed=measuring.seed),
        objective,
        start_rps=starting_rate(arm),
        rate_max_rps=rate_max_rps,
        precision=precision,
        on_trial=on_trial,
    )
    if peak.rate_rps is None:
        return LoadTest((), (), warmup, peak)
    windows, summary = _one_level(arm, PoissonRate(peak.rate_rps), measuring, warmup_s, on_window)
    return LoadTest(windows, (summary,), warmup, peak)


def _warm(arm: Arm, level: Level, measuring: Measuring) -> tuple[Warmup | None, float]:
    if measuring.warmup_s is not None:
        return None, measuring.warmup_s
    return find_warmup(arm, level, seed=measuring.seed), SETTLE_S


def _one_level(
    arm: Arm, level: Level, measuring: Measuring, warmup_s: float, on_window: OnWindow
) -> tuple[tuple[LoadWindow, ...], LevelSummary]:
    rule = measuring.rule
    if rule is None:
        windows = _rounds(arm, [level], measuring, warmup_s, on_window)
        [summary] = summarise_levels(windows, seed=measuring.seed)
        return windows, summary
    windows = measure_until_stable(
        arm,
        level,
        rule,
        window_s=measuring.window_s,
        warmup_s=warmup_s,
        seed=measuring.seed,
        request_count=measuring.request_count,
        on_window=on_window,
    )
    [summary] = summarise_levels(windows, seed=measuring.seed, stability_limit=rule.spread)
    stable = is_stable(windows, rule)
    note = f"not stable within {rule.trials_max} windows (three must agree to {rule.spread:.0%})"
    return windows, summary.model_copy(
        update={"stable": stable, "notes": summary.notes if stable else (note, *summary.notes)}
    )


def _rounds(
    arm: Arm, levels: list[Level], measuring: Measuring, warmup_s: float, on_window: OnWindow
) -> tuple[LoadWindow, ...]:
    return measure_rounds(
        [arm],
        levels=levels,
        rounds=measuring.rounds,
        window_s=measuring.window_s,
        warmup_s=warmup_s,
        seed=measuring.seed,
        request_count=measuring.request_count,
        on_window=on_window,
    )


def _verdict(threshold: Threshold, level: Level, latency_ms: float | None) -> str:
    load = f"concurrency {level}" if isinstance(level, int) else f"{level.rate_rps:g} requests/s"
    where = f"{threshold.name} at {load}"
    if latency_ms is None:
        return f"the {where} is not known: too few requests; measure for longer"
    side = "within" if latency_ms <= threshold.limit_ms else "over"
    return f"the {where} is {latency_ms:.3g} ms, {side} the limit of {threshold.limit_ms:g} ms"
