"""A measurement cut into slices of time: what happened while the rate rose, or in a trace."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimton.perf.load.request_log import LoggedWindow
from trimton.perf.measure.histogram import PERCENTILES, LatencyHistogram


@dataclass(frozen=True)
class Slice:
    """The requests that were due from ``start_s`` for ``length_s``, whenever they were answered.

    Latencies by name (mean, p50, …) in milliseconds; None where too few requests support them.
    """

    start_s: float
    length_s: float
    requests: int
    rate_rps: float
    latency_ms: dict[str, float | None]


def cut(logged: LoggedWindow, length_s: float, count: int) -> tuple[Slice, ...]:
    """``count`` equal slices of a load that lasted ``length_s``, by the start of each request."""
    if not len(logged.started_ns):
        return ()
    offsets_ns = logged.started_ns - logged.started_ns.min()
    latencies_ns = logged.finished_ns - logged.started_ns
    width_s = length_s / count
    index = np.minimum(offsets_ns * count // int(length_s * 1e9), count - 1)
    slices = []
    for number in range(count):
        chosen = latencies_ns[index == number]
        histogram = LatencyHistogram()
        histogram.record_ns(chosen)
        mean = float(chosen.mean()) / 1e6 if len(chosen) else None
        slices.append(
            Slice(
                start_s=number * width_s,
                length_s=width_s,
                requests=len(chosen),
                rate_rps=len(chosen) / width_s,
                latency_ms={
                    "mean": mean,
                    **{name: histogram.percentile_ms(share) for name, share in PERCENTILES.items()},
                },
            )
        )
    return tuple(slices)
