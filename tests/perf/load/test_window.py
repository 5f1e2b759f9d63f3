"""What the measuring window counts, on outcomes at made-up times."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimton.perf.load import tally as tally_module
from trimton.perf.load.window import Window


def feed(window: Window, ends_ns: list[int], latency_ns: int = 1000) -> None:
    for end in ends_ns:
        window.answered(end - latency_ns, end)


@given(
    period=st.integers(1000, 50_000_000),
    clump=st.integers(1, 16),
    periods=st.floats(0.01, 40),
)
@settings(deadline=None)
def test_throughput_of_a_steady_server_is_exact_whatever_the_window(period, clump, periods):
    """Requests end ``clump`` at a time every ``period``, as with dynamic batching."""
    window = Window(int(period * periods), settle=clump)
    step = 1
    while not window.is_closed:
        feed(window, [step * period] * clump)
        step += 1
    measured = window.requests / (window.closed_ns - window.opened_ns)
    assert measured == pytest.approx(clump / period)


def test_the_window_is_as_long_as_asked_or_to_the_next_end():
    window = Window(1000, settle=0)
    feed(window, [10, 500, 900, 1500, 1600])
    assert (window.opened_ns, window.closed_ns) == (10, 1500)
    assert window.requests == 3
    assert window.all_answers == 5


def test_a_request_that_overlaps_the_opening_counts_with_its_whole_latency():
    window = Window(1000, settle=0)
    window.answered(0, 100)
    window.answered(50, 600)
    window.answered(600, 1200)
    assert window.requests == 2
    assert window.mean_latency_ms == pytest.approx((550 + 600) / 2 / 1e6)


def test_errors_open_close_and_count_beside_requests():
    window = Window(1000, settle=1)
    window.failed(10, "timed out", "")
    window.failed(20, "timed out", "")
    window.failed(30, "HTTP 400", "bad shape")
    window.answered(30, 40)
    window.failed(1020, "HTTP 400", "other text")
    assert dict(window.errors) == {"HTTP 400": 2}
    assert window.error_example == "HTTP 400: bad shape"
    assert window.requests == 1
    assert window.closed_ns == 1020


def test_endless_kinds_of_errors_become_one():
    window = Window(10**9, settle=0)
    window.answered(0, 1)
    for i in range(1000):
        window.failed(10 + i, f"kind {i}", "")
    assert sum(window.errors.values()) == 1000
    assert len(window.errors) == 21


def test_memory_is_bounded_and_no_latency_lost(monkeypatch):
    monkeypatch.setattr(tally_module, "_BLOCK", 10)
    window = Window(10**9, settle=0)
    feed(window, [1], latency_ns=1)
    feed(window, list(range(2000, 127_000, 1000)))
    assert len(window.latencies._block) < 10
    window.close(200_000)
    assert len(window.histogram) == window.requests == 125


def test_a_window_without_outcomes_closes_with_no_length():
    window = Window(1000, settle=0)
    window.close()
    assert window.duration_s == 0
    assert window.mean_latency_ms == 0
