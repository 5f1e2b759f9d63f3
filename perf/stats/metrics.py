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
    """One figure of a load.

    ``per_round`` gives one value for each round, ``statistic`` one over all rounds; each is None
    where the rounds do not carry it.
    """

    unit: str
    higher_is_better: bool
    per_round: Callable[[Rounds], list[float] | None]
    statistic: Callable[[Rounds], Statistic | None]


def _percentile(percentile: float, rounds: Rounds) -> Statistic | None:
    if rounds.requests < requests_needed(percentile):
        return None
    return percentile_of(*rounds.buckets, percentile)


def _percentile_of_each(percentile: float, rounds: Rounds) -> list[float] | None:
    if min(window.requests for window in rounds.windows) < requests_needed(percentile):
        return None
    each = np.eye(len(rounds.windows), dtype=np.int64)
    return [float(value) for value in percentile_of(*rounds.buckets, percentile)(each)]


def _field(name: str, rounds: Rounds) -> list[float] | None:
    """A field of every round; None unless all know it."""
    values: list[float | None] = [getattr(window, name) for window in rounds.windows]
    known = [value for value in values if value]
    return known if len(known) == len(values) else None


def _median(name: str, rounds: Rounds) -> Statistic | None:
    values = _field(name, rounds)
    return None if values is None else median_of(values)


def _of_rounds(name: str, unit: str, *, higher_is_better: bool = False) -> Metric:
    """A metric that is a field of LoadWindow, the median over rounds."""
    return Metric(unit, higher_is_better, partial(_field, name), partial(_median, name))


# Throughput, mean latency, CPU and energy are medians over rounds: one disturbed round must not
# move them; percentiles are those of all requests of all rounds, to have enough behind them.
METRICS: Mapping[str, Metric] = {
    "throughput_rps": _of_rounds("throughput_rps", "inferences/s", higher_is_better=True),
    "latency_mean_ms": _of_rounds("latency_mean_ms", "ms"),
    **{
        f"latency_{name}_ms": Metric(
            "ms", False, partial(_percentile_of_each, share), partial(_percentile, share)
        )
        for name, share in PERCENTILES.items()
    },
    "cpu_ms_per_inference": _of_rounds("cpu_ms_per_inference", "ms"),
    "energy_mj_per_inference": _of_rounds("energy_mj_per_inference", "mJ"),
}
