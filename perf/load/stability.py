"""perf_analyzer's rule: windows are repeated until the last three of them agree.

Source: its documentation of measurement; three windows are stable when throughput and latency
(the mean, or a percentile) each satisfy ``max / min <= 1 + s``. What never becomes stable is
returned all the same, and marked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trimton.perf.load.arms import Arm
from trimton.perf.load.rounds import Level, load_at
from trimton.perf.measure.histogram import LatencyHistogram
from trimton.perf.results import LoadWindow

WINDOWS_COMPARED = 3


@dataclass(frozen=True)
class StabilityRule:
    """``spread`` is the share s; ``percentile`` a share in (0, 1), or None for the mean."""

    spread: float = 0.10
    percentile: float | None = None
    trials_max: int = 10


def is_stable(windows: Sequence[LoadWindow], rule: StabilityRule) -> bool:
    """Whether the last three of ``windows`` agree.

    A percentile that too few requests support is not known, and agrees with nothing.
    """
    last = windows[-WINDOWS_COMPARED:]
    if len(last) < WINDOWS_COMPARED:
        return False
    latencies = [stabilising_latency_ms(window, rule.percentile) for window in last]
    return _agree([window.throughput_rps for window in last], rule.spread) and _agree(
        latencies, rule.spread
    )


def stabilising_latency_ms(window: LoadWindow, percentile: float | None) -> float | None:
    """The mean latency of ``window``, or the asked percentile (a share) where it is supported."""
    if percentile is None:
        return window.latency_mean_ms
    return LatencyHistogram.decode(window.latency_histogram).percentile_ms(percentile)


def measure_until_stable(
    arm: Arm,
    level: Level,
    rule: StabilityRule,
    *,
    window_s: float,
    warmup_s: float,
    seed: int,
    request_count: int | None = None,
    on_window: Callable[[LoadWindow], None] = lambda window: None,
) -> tuple[LoadWindow, ...]:
    """Load ``arm`` at ``level`` until three windows agree, or ``trials_max`` were measured.

    Returns the last three (all, where there are fewer). Raises what the arm raises.
    """
    windows: list[LoadWindow] = []
    while len(windows) < rule.trials_max and not is_stable(windows, rule):
        load = load_at(
            level,
            len(windows),
            window_s=window_s,
            warmup_s=warmup_s,
            request_count=request_count,
            seed=seed,
        )
        windows.append(arm.measure(load))
        on_window(windows[-1])
    return tuple(windows[-WINDOWS_COMPARED:])


def _agree(values: Sequence[float | None], spread: float) -> bool:
    known = [value for value in values if value is not None]
    return len(known) == len(values) and max(known) <= min(known) * (1 + spread)
