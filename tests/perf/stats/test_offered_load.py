"""The summary of a level with a schedule says what was asked for, and how well it was kept."""

from __future__ import annotations

import pytest

from trimton.perf.measure.histogram import LatencyHistogram
from trimton.perf.results import LoadWindow
from trimton.perf.stats.levels import summarise_levels


def histogram(latency_ms: float, count: int) -> str:
    made = LatencyHistogram()
    made.record_ns([latency_ms * 1e6] * count)
    return made.encode()


def window(index: int = 0, **fields) -> LoadWindow:
    values = {
        "variant": "m",
        "concurrency": 0,
        "batch": 1,
        "round": index,
        "duration_s": 10.0,
        "requests": 1000,
        "errors": {},
        "throughput_rps": 100.0,
        "latency_histogram": histogram(8, 1000),
        "latency_mean_ms": 8.0,
        "client_cpu_us_per_request": 1.0,
        "arrivals": "constant",
        "rate_rps": 100.0,
        "service_histogram": histogram(2, 1000),
        "service_mean_ms": 2.0,
        "lateness_histogram": histogram(6, 1000),
        "late_sends": 0,
        "client_late_sends": 0,
        "connections": 3 + index,
    }
    return LoadWindow(**values | fields)


def summarise(*windows: LoadWindow):
    [level] = summarise_levels(windows)
    return level


def test_service_times_stand_beside_latencies():
    level = summarise(*(window(i) for i in range(3)))
    assert (level.arrivals, level.rate_rps, level.connections) == ("constant", 100.0, 5)
    assert level.latency_ms.p99.value == pytest.approx(8, rel=0.01)
    assert level.service_ms.p99.value == pytest.approx(2, rel=0.01)
    assert level.service_ms.mean.value == pytest.approx(2)
    assert not level.notes


def test_rates_and_concurrencies_are_levels_of_their_own():
    closed = {
        "concurrency": 4,
        "arrivals": None,
        "rate_rps": None,
        "service_histogram": None,
        "service_mean_ms": None,
        "lateness_histogram": None,
        "late_sends": None,
        "client_late_sends": None,
        "connections": None,
    }
    levels = summarise_levels([window(), window(rate_rps=200.0), window(**closed)])
    assert [(level.concurrency, level.rate_rps) for level in levels] == [
        (0, 100.0),
        (0, 200.0),
        (4, None),
    ]
    assert levels[2].late is None
    assert levels[2].service_ms is None


def test_late_sends_are_counted_with_how_late_they_were():
    late = summarise(window(late_sends=30, client_late_sends=10), window(1)).late
    assert (late.count, late.client, late.share) == (30, 10, 30 / 2000)
    assert late.p99_ms == pytest.approx(6, rel=0.01)
    assert late.max_ms == pytest.approx(6, rel=0.01)


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        (
            {"late_sends": 200, "client_late_sends": 200},
            "the client could not keep the schedule: 20.0% of the sends were late",
        ),
        ({"late_sends": 200}, "20.0% of the sends waited for a free connection"),
        ({"throughput_rps": 80.0}, "answered 80.0 of 100 requests/s that were asked for"),
    ],
)
def test_a_schedule_that_was_not_kept_is_a_note_with_a_number(fields, note):
    level = summarise(*(window(i, **fields) for i in range(3)))
    assert any(note in text for text in level.notes)


def test_a_batch_does_not_count_as_several_requests():
    windows = [window(i, batch=8, throughput_rps=800.0) for i in range(3)]
    assert not summarise(*windows).notes
