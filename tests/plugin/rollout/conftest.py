"""Windows of a canary without a server."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from trimton.perf.measure.histogram import LatencyHistogram
from trimton.perf.results import LoadWindow

REQUESTS = 50


def window(
    variant: str, number: int, latency_ms: float, errors: int = 0, rate_rps: float = REQUESTS
) -> LoadWindow:
    """A window in which every request took ``latency_ms``, and so many more failed."""
    histogram = LatencyHistogram()
    histogram.record_ns(np.full(REQUESTS, latency_ms * 1e6))
    return LoadWindow(
        variant=variant,
        concurrency=0,
        batch=1,
        round=number,
        duration_s=1.0,
        requests=REQUESTS,
        errors={"503": errors} if errors else {},
        throughput_rps=float(REQUESTS),
        latency_histogram=histogram.encode(),
        latency_mean_ms=latency_ms,
        client_cpu_us_per_request=1.0,
        arrivals="poisson",
        rate_rps=rate_rps,
    )


@pytest.fixture(scope="session")
def make_window() -> Callable[..., LoadWindow]:
    """Makes a window of an arm and a round."""
    return window
