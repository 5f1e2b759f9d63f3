"""Measured windows, made up."""

from __future__ import annotations

from typing import Any

import numpy as np

from trimton.perf.measure.histogram import LatencyHistogram
from trimton.perf.results import LoadWindow


def window(
    variant: str = "a",
    number: int = 0,
    throughput: float = 100.0,
    latency_ms: float = 10.0,
    requests: int = 500,
    spread: float = 0.1,
    **fields: Any,
) -> LoadWindow:
    """A second of round ``number``; latencies lie within a share ``spread`` around ``latency_ms``.

    ``fields`` are others of LoadWindow.
    """
    histogram = LatencyHistogram()
    histogram.record_ns(np.linspace(1 - spread, 1 + spread, requests) * latency_ms * 1e6)
    others: dict[str, Any] = {
        "concurrency": 1,
        "batch": 1,
        "duration_s": 1.0,
        "errors": {},
        "latency_mean_ms": latency_ms,
        "client_cpu_us_per_request": 50.0,
    }
    return LoadWindow(
        variant=variant,
        round=number,
        requests=requests,
        throughput_rps=throughput,
        latency_histogram=histogram.encode(),
        **others | fields,
    )


def scheduled_window(
    variant: str, number: int, latency_ms: float, errors: int = 0, rate_rps: float = 50.0
) -> LoadWindow:
    """Fifty requests at random instants that took ``latency_ms`` each; so many more failed."""
    return window(
        variant,
        number,
        throughput=50.0,
        latency_ms=latency_ms,
        requests=50,
        spread=0.0,
        concurrency=0,
        errors={"503": errors} if errors else {},
        arrivals="poisson",
        rate_rps=rate_rps,
    )
