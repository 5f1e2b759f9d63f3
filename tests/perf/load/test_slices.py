"""Slices of time hold the requests that were due in them; the log holds what was counted."""

from __future__ import annotations

import numpy as np
import pytest

from trimton.perf.load.request_log import RequestLog
from trimton.perf.load.slices import cut
from trimton.perf.measure.histogram import LatencyHistogram
from trimton.perf.results import LoadWindow

MS = 1_000_000


def window(requests: int) -> LoadWindow:
    return LoadWindow(
        variant="m",
        concurrency=1,
        batch=1,
        round=0,
        duration_s=1.0,
        requests=requests,
        errors={},
        throughput_rps=1.0,
        latency_histogram=LatencyHistogram().encode(),
        latency_mean_ms=1.0,
        client_cpu_us_per_request=1.0,
    )


def logged(requests: list[tuple[int, int]]):
    log = RequestLog()
    for start, end in requests:
        log.on_request(start, end)
    log.on_window(window(len(requests)))
    return log.windows[0]


def test_each_request_is_in_the_slice_of_its_start_however_late_it_ends():
    requests = [(1000 + i * 100 * MS, 1000 + i * 100 * MS + (i + 1) * MS) for i in range(10)]
    requests[0] = (1000, 1000 + 5000 * MS)
    slices = cut(logged(requests), 1.0, 5)
    assert [part.requests for part in slices] == [2] * 5
    assert [part.rate_rps for part in slices] == pytest.approx([10] * 5)
    assert slices[0].latency_ms["mean"] == pytest.approx((5000 + 2) / 2)
    assert slices[4].latency_ms["mean"] == pytest.approx((9 + 10) / 2)
    assert [part.start_s for part in slices] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])


def test_a_percentile_needs_its_requests_in_the_slice():
    requests = [(i * MS, (i + 3) * MS) for i in range(500)]
    first, second = cut(logged(requests), 1.0, 2)
    assert first.latency_ms["p99"] == pytest.approx(3, rel=0.01)
    assert second.requests == 0
    assert second.latency_ms["p50"] is None
    assert second.latency_ms["mean"] is None


def test_nothing_logged_makes_no_slices():
    assert cut(logged([]), 1.0, 3) == ()


def test_requests_before_a_window_that_do_not_count_are_dropped():
    log = RequestLog()
    for start in range(5):
        log.on_request(start, start + 10)
    log.on_window(window(2))
    assert log.windows[0].started_ns.tolist() == [3, 4]


def test_only_windows_that_count_are_kept():
    log = RequestLog()
    windows = [window(0), window(0)]
    for one in windows:
        log.on_window(one)
    log.keep([windows[1]])
    [left] = log.windows
    assert left.window is windows[1]
    assert np.array_equal(left.started_ns, [])
