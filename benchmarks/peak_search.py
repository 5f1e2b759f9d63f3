"""Peak search against a brute sweep and against theory: the same peak, in how much of the time?

A real Triton serves a model that takes the same time for every request. The sweep loads it at every
rate of a grid in steps of 5 %, from a quarter of the capacity up, each with as many requests as a
trial of the search may take, until three in a row broke the limit. Its peak is where the percentile
crosses the limit, once the percentiles are made to rise with the rate (isotonic regression: what
the highest rate that held would say is luck). Both see Poisson arrivals and count latency from the
scheduled instant, so the peak is also known from theory (M/D/1, with the service time measured in a
closed loop). They run one after the other, several times; the figures are medians. Exit code 1 if
the peaks differ by more than 5 % or the search takes more than a third of the sweep's time.

    python benchmarks/peak_search.py [--limit MS] [--repeats N] [--trials]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import isotonic_regression
from steady_server import measured_queue, steady_server

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
from trimton.perf.measure.histogram import requests_needed

GRID = (0.25, 1.1)  # of the capacity
STEP = 1.05
REQUESTS = 6  # times the fewest with which the percentile can be told
PRECISION = 0.03
BREAKS_TO_END = 3
SERVICE_S = 0.001
RATE_MAX_RPS = 5_000
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
    """Without stopping early, with as many requests for each rate as the search may take."""
    rates = capacity_rps * np.geomspace(*GRID, 1 + round(np.log(GRID[1] / GRID[0]) / np.log(STEP)))
    requests = REQUESTS * requests_needed(objective.percentile)
    settled_s = 6 * objective.latency_ms / 1000 / PRECISION
    trials: list[Trial] = []
    breaks = 0
    for index, rate_rps in enumerate(rates.tolist()):
        length_s = max(settled_s, requests / rate_rps)
        verdict = Verdict(objective, length_s)
        span, _ = arm.run(
            Load(
                0,
                index,
                length_s,
                0.3,
                PoissonRate(rate_rps),
                seed=seed,
                latency_limit_ms=objective.latency_ms,
            )
        )
        assert isinstance(span, Span), "a schedule is counted by a span"
        trials.append(verdict.trial(rate_rps, span))
        tell(trials[-1])
        breaks = 0 if trials[-1].holds else breaks + 1
        if breaks == BREAKS_TO_END:
            break
    return Found(crossing_rps(trials, objective.latency_ms), _seconds(trials), len(trials))


def crossing_rps(trials: Sequence[Trial], limit_ms: float) -> float:
    """Where the percentiles, made to rise with the rate, cross ``limit_ms``.

    The first and last rate of the sweep where all of it broke or held.
    """
    known = [trial for trial in trials if trial.percentile_ms]
    rising = isotonic_regression(np.log([trial.percentile_ms for trial in known])).x
    rates = np.log([trial.rate_rps for trial in known])
    # Equal neighbours are told apart, so that a crossing inside them is their middle.
    apart = rising + np.linspace(0, 1e-9, len(known))
    return float(np.exp(np.interp(np.log(limit_ms), apart, rates)))


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
    parser.add_argument("--limit", type=float, default=6.0, help="p99 in milliseconds")
    parser.add_argument("--trials", action="store_true", help="print every trial")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    screen = Console(width=110)
    objective = Objective(options.limit)
    tell: Tell = tell_trial if options.trials else lambda trial: None
    table = Table(
        "peak requests/s",
        "search",
        "s",
        "sweep",
        "s",
        "theory",
        "search/sweep",
        "search/theory",
        "time ratio",
        box=None,
    )
    peaks, truths, times = [], [], []
    with steady_server(SERVICE_S) as arm:
        for repeat in range(options.repeats):
            queue = measured_queue(arm)
            theory_rps = queue.peak_rps(objective.latency_ms / 1000, objective.percentile)
            searched = by_search(arm, objective, repeat, tell)
            swept = by_sweep(arm, objective, 1 / queue.service_s, repeat, tell)
            peaks.append(searched.rate_rps / swept.rate_rps if swept.rate_rps else 0.0)
            truths.append(searched.rate_rps / theory_rps)
            times.append(searched.seconds / swept.seconds)
            table.add_row(
                f"run {repeat + 1}",
                f"{searched.rate_rps:.0f}",
                f"{searched.seconds:.0f}",
                f"{swept.rate_rps:.0f}",
                f"{swept.seconds:.0f}",
                f"{theory_rps:.0f}",
                f"{peaks[-1]:.3f}",
                f"{truths[-1]:.3f}",
                f"{times[-1]:.2f}",
            )
    screen.print(f"p99 within {options.limit:g} ms, Poisson arrivals")
    screen.print(table)
    peak, time = median(peaks), median(times)
    screen.print(
        f"median: peak {peak:.3f} of the sweep's (target: within {DIFFERENCE_AT_MOST:.0%}) and "
        f"{median(truths):.3f} of theory's, "
        f"time {time:.2f} of the sweep's (target: at most {TIME_AT_MOST:.2f})"
    )
    sys.exit(0 if abs(peak - 1) <= DIFFERENCE_AT_MOST and time <= TIME_AT_MOST else 1)


if __name__ == "__main__":
    main()
