"""Schedules: the instants at which requests are due, in nanoseconds from the start.

Pure, seeded and computed before the load: ``instants_ns`` gives int64 [requests], ascending,
within [0, duration). A new kind of arrival is one class here and a row where options name it.

Constant and Poisson rates last as long as they are asked to; a ramp and a trace have a length of
their own, and a shorter duration takes their first part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Instants = npt.NDArray[np.int64]

_NS = 1e9


class Arrivals(Protocol):
    """A way in which requests arrive."""

    @property
    def name(self) -> str:
        """What results call it."""

    @property
    def rate_rps(self) -> float:
        """Requests per second that it asks for, the mean where the rate changes."""

    def instants_ns(self, duration_s: float, seed: int) -> Instants:
        """The schedule of ``duration_s`` seconds; the same for the same seed."""

    def first_ns(self, count: int, seed: int) -> Instants:
        """A schedule of ``count`` requests; fewer only where there are no more."""

    def duration_s(self, window_s: float) -> float:
        """How long a schedule lasts where windows of ``window_s`` are asked for."""


@dataclass(frozen=True)
class ConstantRate:
    """Evenly spaced requests."""

    rate_rps: float
    name: str = "constant"

    def instants_ns(self, duration_s: float, seed: int) -> Instants:
        """Every 1/rate seconds, the first at 0."""
        return self.first_ns(max(1, round(duration_s * self.rate_rps)), seed)

    def first_ns(self, count: int, seed: int) -> Instants:
        return (np.arange(count) * (_NS / self.rate_rps)).astype(np.int64)

    def duration_s(self, window_s: float) -> float:
        return window_s


@dataclass(frozen=True)
class PoissonRate:
    """Independent arrivals: exponential gaps, as LoadGen's Server scenario has them."""

    rate_rps: float
    name: str = "poisson"

    def instants_ns(self, duration_s: float, seed: int) -> Instants:
        """A Poisson process; a different count for each seed, as in reality."""
        generator = np.random.default_rng(seed)
        # Given their number, the arrivals of a Poisson process are uniform order statistics.
        count = max(1, int(generator.poisson(self.rate_rps * duration_s)))
        return np.sort((generator.random(count) * duration_s * _NS).astype(np.int64))

    def first_ns(self, count: int, seed: int) -> Instants:
        gaps_s = np.random.default_rng(seed).exponential(1 / self.rate_rps, count)
        return (np.cumsum(gaps_s) * _NS).astype(np.int64)

    def duration_s(self, window_s: float) -> float:
        return window_s


@dataclass(frozen=True)
class Ramp:
    """A rate that rises (or falls) linearly from ``start_rps`` to ``end_rps`` in ``length_s``."""

    start_rps: float
    end_rps: float
    length_s: float
    name: str = "ramp"

    @property
    def rate_rps(self) -> float:
        """The mean of both ends."""
        return (self.start_rps + self.end_rps) / 2

    def instants_ns(self, duration_s: float, seed: int) -> Instants:
        """The part within ``duration_s``; a request is due when the integral of the rate says."""
        slope = (self.end_rps - self.start_rps) / self.length_s
        due = np.arange(max(1, round(self.rate_rps * self.length_s)), dtype=np.float64)
        # Solves start*t + slope*t^2/2 = k in the form that does not cancel for small slopes.
        root = np.sqrt(np.maximum(self.start_rps**2 + 2 * slope * due, 0))
        below = self.start_rps + root
        seconds = np.divide(2 * due, below, out=np.zeros_like(due), where=below > 0)
        instants_ns = np.minimum(seconds * _NS, self.length_s * _NS - 1).astype(np.int64)
        return instants_ns[: np.searchsorted(instants_ns, duration_s * _NS)]

    def first_ns(self, count: int, seed: int) -> Instants:
        return self.instants_ns(self.length_s, seed)[:count]

    def duration_s(self, window_s: float) -> float:
        """A ramp is as long as it is."""
        return self.length_s


@dataclass(frozen=True)
class Trace:
    """Recorded arrivals, replayed as they were; ``offsets_ns`` is ascending from 0."""

    offsets_ns: Instants
    name: str = "trace"

    @property
    def rate_rps(self) -> float:
        """The mean rate; a trace of one request counts as one per second."""
        span_ns = int(self.offsets_ns[-1])
        return (len(self.offsets_ns) - 1) / span_ns * _NS if span_ns else 1.0

    def instants_ns(self, duration_s: float, seed: int) -> Instants:
        """The part of the trace within ``duration_s``."""
        return self.offsets_ns[: np.searchsorted(self.offsets_ns, duration_s * _NS)]

    def first_ns(self, count: int, seed: int) -> Instants:
        return self.offsets_ns[:count]

    def duration_s(self, window_s: float) -> float:
        """A trace is as long as it is: to the gap after its last request."""
        return float(self.offsets_ns[-1]) / _NS + 1 / self.rate_rps


# The values of --request-distribution.
DISTRIBUTIONS: Mapping[str, type[ConstantRate] | type[PoissonRate]] = {
    "constant": ConstantRate,
    "poisson": PoissonRate,
}
