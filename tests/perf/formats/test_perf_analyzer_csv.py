"""The CSV begins with perf_analyzer's columns, exactly."""

from __future__ import annotations

import csv
import io

import pytest

from trimton.core.errors import InputError
from trimton.perf.formats.perf_analyzer_csv import perf_analyzer_csv
from trimton.perf.results import (
    Interval,
    LatencySummary,
    LevelSummary,
    ServerStatistics,
)

# Copied from a file that perf_analyzer wrote.
THEIRS = (
    "Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,"
    "Server Compute Infer,Server Compute Output,Client Recv,p50 latency,p90 latency,p95 latency,"
    "p99 latency"
)
SERVER = ServerStatistics(
    requests=10,
    failures=0,
    inferences=10,
    executions=10,
    request_us=900,
    queue_us=100.9,
    compute_input_us=50,
    compute_infer_us=700,
    compute_output_us=25,
    mean_batch=1,
)


def level(concurrency: int, rate: float, **fields) -> LevelSummary:
    latency = LatencySummary(
        mean=Interval(value=1.25),
        p50=Interval(value=1.2),
        p90=Interval(value=1.5),
        p95=Interval(value=1.75),
        p99=None,
    )
    return LevelSummary(
        variant="m",
        concurrency=concurrency,
        batch=1,
        rounds=3,
        requests=100,
        errors={"timed out": 2},
        throughput_rps=Interval(value=rate, low=rate - 1, high=rate + 1),
        latency_ms=latency,
        stable=False,
        client_cpu_us_per_request=50,
        server=SERVER,
        **fields,
    )


def table(levels):
    return list(csv.reader(io.StringIO(perf_analyzer_csv(levels))))


def test_the_columns_are_perf_analyzers_in_order_and_ours_come_after():
    text = perf_analyzer_csv([level(1, 100.0)])
    assert text.startswith(f"Concurrency,{THEIRS},Avg latency,")


def test_times_are_whole_microseconds_and_a_missing_percentile_is_empty():
    head, row = table([level(4, 100.5)])
    cells = dict(zip(head, row, strict=True))
    assert cells["Concurrency"] == "4"
    assert cells["Inferences/Second"] == "100.5"
    assert cells["Server Queue"] == "100"
    # 1250 us of latency, less the 875.9 that the server accounts for.
    assert cells["Network+Server Send/Recv"] == "374"
    assert [cells[f"{p} latency"] for p in ("p50", "p90", "p95", "p99")] == [
        "1200",
        "1500",
        "1750",
        "",
    ]


def test_rows_ascend_by_throughput_and_unstable_levels_are_there():
    head, *rows = table([level(8, 300.0), level(1, 100.0), level(4, 200.0)])
    assert [row[0] for row in rows] == ["1", "4", "8"]
    assert {row[head.index("Stable")] for row in rows} == {"no"}
    assert {row[head.index("Errors")] for row in rows} == {"2"}


def test_rates_stand_under_request_rate():
    head, row = table([level(0, 99.0, arrivals="poisson", rate_rps=100.0)])
    assert (head[0], row[0]) == ("Request Rate", "100")


def test_both_in_one_file_are_refused():
    with pytest.raises(InputError, match="not both"):
        perf_analyzer_csv([level(1, 1.0), level(0, 1.0, arrivals="constant", rate_rps=1.0)])
