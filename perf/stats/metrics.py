"""The metrics of a load, each a function of the rounds behind it. A new metric is one row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from trimton.perf.measure.histogram import PERCENTILES, LatencyHistogram, requests_needed
from trimton.perf.results import LoadWindow
from trimton.perf.stats.bootstrap import Statistic, Vector, median_of, percentile_of


@dataclass(frozen=True)
class Rounds:
    """The windows of one variant at one load, ordered by round."""

    windows: tuple[LoadWindow, ...]

    @classmethod
    def of(cls, windows: Sequence[LoadWindow]) -> Rounds:
        """``windows`` in the order of their rounds."""
        return cls(tuple(sorted(windows, key=lambda window: window.round)))

    @property
    def requests(self) -> int:
        """Successful requests over all rounds."""
        return sum(window.requests for window in self.windows)

    @cached_property
    def buckets(self) -> tuple[Vector, npt.NDArray[np.int64]]:
        """Latencies in milliseconds, ascending [buckets], and counts [rounds, buckets]."""
        parts = [LatencyHistogram.decode(w.latency_histogram).buckets() for w in self.windows]
        values = np.unique(np.concatenate([values for values, _ in parts]))
        counts = np.zeros((len(parts), len(values)), np.int64)
        for row, (part_values, part_counts) in zip(counts, parts, strict=True):
            row[np.searchsorted(values, part_values)] = part_counts
        return values, counts


@dataclass(frozen=True)
class Metric:
    """``statistic`` gives None where the rounds do not carry the metric."""

    unit: str
    higher_is_better: bool
    statistic: Callable[[Rounds], Statistic | None]


def _throughput(rounds: Rounds) -> Statistic:
    return median_of([window.throughput_rps for window in rounds.windows])


def _mean_latency(rounds: Rounds) -> Statistic:
    return median_of([window.latency_mean_ms for window in rounds.windows])


def _percentile(percentile: float, rounds: Rounds) -> Statistic | None:
    if rounds.requests < requests_needed(percentile):
        return None
    return percentile_of(*rounds.buckets, percentile)


def _every_round(field: str, rounds: Rounds) -> Statistic | None:
    """The median of a field that a window may lack; None unless every round has it."""
    values: list[float | None] = [getattr(window, field) for window in rounds.windows]
    known = [value for value in values if value]
    return median_of(known) if len(known) == len(values) else None


# Throughput, mean latency, CPU and energy are medians over rounds: one disturbed round must not
# move them; percentiles are those of all requests of all rounds, to have enough behind them.
METRICS: Mapping[str, Metric] = {
    "throughput_rps": Metric("inferences/s", True, _throughput),
    "latency_mean_ms": Metric("ms", False, _mean_latency),
    **{
        f"latency_{name}_ms": Metric("ms", False, partial(_percentile, share))
        for name, share in PERCENTILES.items()
    },
    "cpu_ms_per_inference": Metric("ms", False, partial(_every_round, "cpu_ms_per_inference")),
    "energy_mj_per_inference": Metric(
        "mJ", False, partial(_every_round, "energy_mj_per_inference")
    ),
}
