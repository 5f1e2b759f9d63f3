"""Peak search against a brute sweep: the same peak, in how much of the time?

The sweep loads a real Triton at every rate of a grid with steps of 5 %, long enough at each for
LoadGen's bound to decide as the search does at its end, from a quarter of the capacity up to the
first three rates in a row that break the limit. Both see Poisson arrivals and count latency from
the scheduled instant. They run one after the other, several times, because the capacity of a
shared machine drifts; the figures are medians.

    python benchmarks/peak_search.py [--limit MS] [--repeats N]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table
from trivial_server import trivial_server

from trimton.perf.load.arms import Load, ServedArm
from trimton.perf.load.peak_search import Objective, Trial, rate_trials, search_peak, starting_rate

STEP = 1.05
BREAKS_TO_END = 3
RATE_MAX_RPS = 50_000


@dataclass(frozen=True)
class Found:
    rate_rps: float
    seconds: float
    trials: int


def by_search(arm: ServedArm, objective: Objective, seed: int) -> Found:
    peak = search_peak(
        rate_trials(arm, objective, warmup_s=0.3, seed=seed),
        objective,
        start_rps=starting_rate(arm),
        rate_max_rps=RATE_MAX_RPS,
    )
    return Found(peak.rate_rps or 0.0, _seconds(peak.trials), len(peak.trials))


def by_sweep(arm: ServedArm, objective: Objective, start_rps: float, seed: int) -> Found:
    attempt = rate_trials(arm, objective, warmup_s=0.3, seed=seed)
    shortest_s = 6 * objective.latency_ms / 1000 / (STEP - 1)
    rate_rps, best_rps = start_rps, 0.0
    trials: list[Trial] = []
    breaks = 0
    while breaks < BREAKS_TO_END:
        trials.append(attempt(rate_rps, max(shortest_s, 2.0)))
        if trials[-1].holds:
            best_rps, breaks = rate_rps, 0
        else:
            breaks += 1
        rate_rps *= STEP
    return Found(best_rps, _seconds(trials), len(trials))


def _seconds(trials: list[Trial] | tuple[Trial, ...]) -> float:
    return sum(trial.duration_s for trial in trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=float, default=25.0, help="p99 in milliseconds")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    screen = Console()
    objective = Objective(options.limit)
    table = Table(
        "peak requests/s", "search", "s", "sweep", "s", "peak ratio", "time ratio", box=None
    )
    peaks, times = [], []
    with trivial_server() as running:
        for repeat in range(options.repeats):
            capacity, _ = running.arm.run(Load(16, 0, 1.0, 0.5))
            start_rps = capacity.requests / capacity.duration_s / 4
            searched = by_search(running.arm, objective, repeat)
            swept = by_sweep(running.arm, objective, start_rps, repeat)
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
    screen.print(
        f"median: peak {median(peaks):.3f} of the sweep's (target: within 5 %), "
        f"time {median(times):.2f} of the sweep's (target: at most 0.33)"
    )


if __name__ == "__main__":
    main()
