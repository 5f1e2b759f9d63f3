"""Peak search against a brute sweep: the same peak, in how much of the time?

The sweep loads a real Triton at every rate of a grid in steps of 5 %, from a quarter of the
capacity to a tenth above it, each for as long as the search's last trials last at least. Its peak
is the highest rate that held the limit below the first three in a row that broke it. Both see
Poisson arrivals and count latency from the scheduled instant. They run one after the other,
several times, because the capacity of a shared machine drifts; the figures are medians. Exit code
1 if the peaks differ by more than 5 % or the search takes more than a third of the sweep's time.

    python benchmarks/peak_search.py [--limit MS] [--repeats N] [--trials]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table
from trivial_server import trivial_server

from trimton.perf.load.arms import Load, ServedArm
from trimton.perf.load.peak_search import (
    Objective,
    Trial,
    Verdict,
    rate_trials,
    search_peak,
    starting_rate,
)
from trimton.perf.load.schedules import PoissonRate
from trimton.perf.load.span import Span

STEP = 1.05
PRECISION = 0.03
BREAKS_TO_END = 3
RATE_MAX_RPS = 50_000
DIFFERENCE_AT_MOST = 0.05
TIME_AT_MOST = 1 / 3


@dataclass(frozen=True)
class Found:
    rate_rps: float
    seconds: float
    trials: int


Tell = Callable[[Trial], None]


def by_search(arm: ServedArm, objective: Objective, seed: int, tell: Tell) -> Found:
    peak = search_peak(
        rate_trials(arm, objective, warmup_s=0.3, seed=seed),
        objective,
        start_rps=starting_rate(arm),
        rate_max_rps=RATE_MAX_RPS,
        precision=PRECISION,
        on_trial=tell,
    )
    return Found(peak.rate_rps or 0.0, _seconds(peak.trials), len(peak.trials))


def by_sweep(
    arm: ServedArm, objective: Objective, capacity_rps: float, seed: int, tell: Tell
) -> Found:
    """Without stopping early: a brute sweep does not know what it will find."""
    length_s = max(2.0, 6 * objective.latency_ms / 1000 / PRECISION)
    rates = capacity_rps * np.geomspace(0.25, 1.1, 1 + round(np.log(1.1 / 0.25) / np.log(STEP)))
    trials = []
    for index, rate_rps in enumerate(rates.tolist()):
        verdict = Verdict(objective, length_s)
        span, _ = replace(arm, on_request=verdict.on_request).run(
            Load(0, index, length_s, 0.3, PoissonRate(rate_rps), seed=seed)
        )
        assert isinstance(span, Span), "a schedule is counted by a span"
        trials.append(verdict.trial(rate_rps, span))
        tell(trials[-1])
    best_rps, breaks = 0.0, 0
    for trial in trials:
        breaks = 0 if trial.holds else breaks + 1
        if trial.holds:
            best_rps = trial.rate_rps
        if breaks == BREAKS_TO_END:
            break
    return Found(best_rps, _seconds(trials), len(trials))


def _seconds(trials: list[Trial] | tuple[Trial, ...]) -> float:
    return sum(trial.duration_s for trial in trials)


def tell_trial(trial: Trial) -> None:
    """One line on standard error."""
    words = "holds" if trial.holds else "breaks"
    percentile = "-" if trial.percentile_ms is None else f"{trial.percentile_ms:.1f} ms"
    print(
        f"  {trial.rate_rps:.0f} requests/s for {trial.duration_s:.1f} s: {words}, {percentile}",
        file=sys.stderr,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=float, default=10.0, help="p99 in milliseconds")
    parser.add_argument("--trials", action="store_true", help="print every trial")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    screen = Console(width=110)
    objective = Objective(options.limit)
    tell: Tell = tell_trial if options.trials else lambda trial: None
    table = Table(
        "peak requests/s", "search", "s", "sweep", "s", "peak ratio", "time ratio", box=None
    )
    peaks, times = [], []
    with trivial_server() as running:
        for repeat in range(options.repeats):
            capacity, _ = running.arm.run(Load(16, 0, 1.0, 0.5))
            capacity_rps = capacity.requests / capacity.duration_s
            searched = by_search(running.arm, objective, repeat, tell)
            swept = by_sweep(running.arm, objective, capacity_rps, repeat, tell)
            peaks.append(searched.rate_rps / swept.rate_rps if swept.rate_rps else 0.0)
            times.append(searched.seconds / swept.seconds)
            table.add_row(
                f"run {repeat + 1}",
                f"{searched.rate_rps:.0f}",
                f"{searched.seconds:.0f}",
                f"{swept.rate_rps:.0f}",
                f"{swept.seconds:.0f}",
                f"{peaks[-1]:.3f}",
                f"{times[-1]:.2f}",
            )
    screen.print(f"p99 within {options.limit:g} ms, Poisson arrivals")
    screen.print(table)
    peak, time = median(peaks), median(times)
    screen.print(
        f"median: peak {peak:.3f} of the sweep's (target: within {DIFFERENCE_AT_MOST:.0%}), "
        f"time {time:.2f} of the sweep's (target: at most {TIME_AT_MOST:.2f})"
    )
    sys.exit(0 if abs(peak - 1) <= DIFFERENCE_AT_MOST and time <= TIME_AT_MOST else 1)


if __name__ == "__main__":
    main()
