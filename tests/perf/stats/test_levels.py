"""Summaries of windows, and comparisons between variants, on windows with known contents."""

from __future__ import annotations

import numpy as np
import pytest
from windows import window

from trimton.perf.results import Interval, ServerStatistics
from trimton.perf.stats.compare import compare_variants, judge
from trimton.perf.stats.levels import summarise_levels


def rounds(variant, throughputs, **fields):
    return [
        window(variant, i, throughput, 1000 / throughput, **fields)
        for i, throughput in enumerate(throughputs)
    ]


def test_a_level_is_the_median_of_its_rounds_with_an_interval():
    [level] = summarise_levels(rounds("a", [98, 100, 104]))
    assert (level.variant, level.rounds, level.requests) == ("a", 3, 1500)
    assert level.throughput_rps.value == 100
    assert level.throughput_rps.low < 100 < level.throughput_rps.high
    assert level.latency_ms.mean.value == pytest.approx(10)
    assert level.stable
    assert level.notes == ()


def test_percentiles_are_of_all_requests_of_all_rounds():
    [level] = summarise_levels([window(number=0, latency_ms=10), window(number=1, latency_ms=20)])
    # 500 latencies in [9, 11] and 500 in [18, 22] milliseconds.
    assert level.latency_ms.p50.value == pytest.approx(11, rel=2e-3)
    assert level.latency_ms.p95.value == pytest.approx(21.6, rel=2e-3)


def test_a_percentile_with_too_few_requests_is_missing_and_says_how_many_are():
    [level] = summarise_levels([window(number=i, requests=100) for i in range(3)])
    assert level.latency_ms.p99 is None
    assert level.latency_ms.p95 is not None
    assert level.notes == ("p99 needs 459 requests, but there are 300",)


def test_rounds_that_differ_are_unstable_and_it_says_by_how_much():
    [level] = summarise_levels(rounds("a", [100, 115, 100]))
    assert not level.stable
    assert "throughput differs by 15% between rounds (limit 10%)" in level.notes


def test_two_rounds_are_too_few_to_be_stable():
    [level] = summarise_levels(rounds("a", [100, 100]))
    assert not level.stable
    assert any("stability needs 3 rounds" in note for note in level.notes)


def test_a_client_that_fills_its_core_is_named_as_the_limit():
    busy = [window(number=i, requests=500, client_cpu_us_per_request=1800.0) for i in range(3)]
    [level] = summarise_levels(busy)
    assert level.notes == ("the load generator used 90% of a core and may be the limit",)


def test_variants_loads_and_batches_are_kept_apart_in_their_order():
    windows = [
        window("b", 0, concurrency=4),
        window("a", 0, concurrency=4),
        window("b", 0, concurrency=1),
        window("b", 1, concurrency=4),
        window("b", 0, concurrency=4, batch=8),
    ]
    found = [(lv.variant, lv.concurrency, lv.batch, lv.rounds) for lv in summarise_levels(windows)]
    assert found == [("b", 4, 1, 2), ("a", 4, 1, 1), ("b", 1, 1, 1), ("b", 4, 8, 1)]


def test_errors_and_server_figures_add_up_over_rounds():
    statistics = ServerStatistics(
        requests=10,
        failures=1,
        inferences=20,
        executions=5,
        request_us=1,
        queue_us=1,
        compute_input_us=1,
        compute_infer_us=1,
        compute_output_us=1,
        mean_batch=4,
    )
    [level] = summarise_levels(
        [
            window(
                number=0, errors={"HTTP 500": 2}, error_example="HTTP 500: no", server=statistics
            ),
            window(number=1, errors={"HTTP 500": 1, "timed out": 4}, server=statistics),
        ]
    )
    assert level.errors == {"HTTP 500": 3, "timed out": 4}
    assert level.server.requests == 20
    assert level.server.mean_batch == 4
    assert "first error: HTTP 500: no" in level.notes


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "outcome"),
    [
        (0.98, 1.02, True, "equivalent"),
        (1.001, 1.002, True, "equivalent"),
        (1.01, 1.20, True, "better"),
        (1.01, 1.20, False, "worse"),
        (0.80, 0.99, True, "worse"),
        (0.80, 0.99, False, "better"),
        (0.96, 1.02, True, "inconclusive"),
        (0.98, 1.20, True, "inconclusive"),
        (None, None, True, "inconclusive"),
    ],
)
def test_an_outcome_needs_the_whole_interval(low, high, higher_is_better, outcome):
    interval = Interval(value=1.0, low=low, high=high)
    assert judge(interval, higher_is_better=higher_is_better, margin=0.03) == outcome


def test_the_margin_is_as_wide_for_slower_as_for_faster():
    edge = 1 / 1.03
    within = Interval(value=1.0, low=edge + 1e-9, high=1.03 - 1e-9)
    assert judge(within, higher_is_better=True, margin=0.03) == "equivalent"


def test_a_faster_variant_is_better_in_throughput_and_latency():
    windows = rounds("a", [100, 101, 99, 100]) + rounds("b", [150, 152, 149, 150])
    found = {m.name: m for m in compare_variants(windows, baseline="a", variant="b")}
    throughput, latency = found["throughput_rps@1"], found["latency_p99_ms@1"]
    assert throughput.ratio == pytest.approx(1.5, rel=5e-3)
    assert throughput.interval[0] < 1.5 < throughput.interval[1]
    assert throughput.outcome == latency.outcome == "better"
    assert latency.ratio == pytest.approx(1 / 1.5, rel=1e-2)
    assert (throughput.baseline, throughput.variant) == pytest.approx((100, 150), rel=5e-3)
    assert throughput.ratio == pytest.approx(throughput.variant / throughput.baseline)
    assert "cpu_ms_per_inference@1" not in found


def test_only_rounds_and_loads_that_both_have_are_compared():
    windows = [
        *rounds("a", [100, 100, 999], concurrency=1),
        *rounds("b", [100, 100], concurrency=1),
        *rounds("a", [100, 100], concurrency=4),
    ]
    found = compare_variants(windows, baseline="a", variant="b")
    assert {metric.concurrency for metric in found} == {1}
    assert found[0].baseline == pytest.approx(100)


def test_loads_by_schedule_are_told_apart_by_their_rates():
    fields = {"concurrency": 0, "arrivals": "constant", "service_mean_ms": 1.0}
    windows = [
        window(variant, number, rate, latency_ms, rate_rps=rate, **fields)
        for variant, slowness in (("a", 1), ("b", 2))
        for rate, latency_ms in ((100.0, 5 * slowness), (250.5, 20.0))
        for number in range(4)
    ]
    metrics = ("latency_mean_ms",)
    found = compare_variants(windows, baseline="a", variant="b", metrics=metrics)
    assert [m.name for m in found] == ["latency_mean_ms@100/s", "latency_mean_ms@250.5/s"]
    assert [m.rate_rps for m in found] == [100, 250.5]
    assert [m.concurrency for m in found] == [None, None]
    assert [m.ratio for m in found] == pytest.approx([2, 1])


def test_a_metric_that_one_side_lacks_is_left_out():
    windows = rounds("a", [100, 100], requests=500, cpu_ms_per_inference=1.0) + rounds(
        "b", [100, 100], requests=100
    )
    names = {m.name for m in compare_variants(windows, baseline="a", variant="b")}
    assert "latency_p95_ms@1" in names
    assert not {"latency_p99_ms@1", "cpu_ms_per_inference@1"} & names


def test_equal_variants_are_called_better_or_worse_in_at_most_one_of_twenty():
    generator = np.random.default_rng(3)
    alarms = 0
    for _ in range(400):
        noise = 100 * np.exp(generator.normal(0, 0.04, (2, 6)))
        [throughput] = compare_variants(
            rounds("a", noise[0], requests=1) + rounds("b", noise[1], requests=1),
            baseline="a",
            variant="b",
            metrics=("throughput_rps",),
        )
        alarms += throughput.outcome in ("better", "worse")
    assert alarms <= 20
