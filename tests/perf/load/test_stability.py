"""perf_analyzer's rule of three windows."""

from __future__ import annotations

import pytest
from windows import window

from trimton.perf.load.arms import Load
from trimton.perf.load.stability import StabilityRule, is_stable, measure_until_stable
from trimton.perf.measure.histogram import LatencyHistogram
from trimton.perf.results import LoadWindow


@pytest.mark.parametrize(
    ("rates", "stable"),
    [
        ([100, 100], False),
        ([100, 105, 110], True),
        ([100, 105, 111], False),
        ([10, 100, 105, 110], True),
        ([100, 105, 110, 10], False),
    ],
)
def test_the_last_three_rates_must_agree(rates, stable):
    assert is_stable([window(throughput=rate) for rate in rates], StabilityRule()) is stable


def test_the_latency_must_agree_too():
    windows = [window(latency_ms=latency) for latency in (1.0, 1.0, 1.2)]
    assert not is_stable(windows, StabilityRule(spread=0.1))
    assert is_stable(windows, StabilityRule(spread=0.21))


def test_a_percentile_decides_where_one_is_asked_for():
    def tailed(tail_ms: float) -> LoadWindow:
        histogram = LatencyHistogram()
        histogram.record_ns([1e6] * 900 + [tail_ms * 1e6] * 100)
        return window().model_copy(update={"latency_histogram": histogram.encode()})

    windows = [tailed(ms) for ms in (10, 10, 20)]
    assert is_stable(windows, StabilityRule(percentile=0.5))
    assert not is_stable(windows, StabilityRule(percentile=0.95))


def test_a_percentile_without_enough_requests_agrees_with_nothing():
    windows = [window(requests=10)] * 3
    assert not is_stable(windows, StabilityRule(percentile=0.99))


class ScriptedArm:
    variant = "m"
    batch = 1

    def __init__(self, rates):
        self.rates = list(rates)
        self.loads: list[Load] = []

    def measure(self, load: Load) -> LoadWindow:
        self.loads.append(load)
        return window(number=load.round, throughput=self.rates[load.round])


def measure(rates, **rule):
    arm = ScriptedArm(rates)
    rule = StabilityRule(**rule)
    windows = measure_until_stable(arm, 4, rule, window_s=0.5, warmup_s=0.1, seed=0)
    return arm, [w.throughput_rps for w in windows]


def test_windows_are_repeated_until_three_agree_and_these_are_given():
    arm, rates = measure([10, 50, 100, 101, 102, 500])
    assert rates == [100, 101, 102]
    assert len(arm.loads) == 5
    assert {(load.concurrency, load.window_s, load.warmup_s) for load in arm.loads} == {
        (4, 0.5, 0.1)
    }


def test_what_never_agrees_is_given_all_the_same():
    arm, rates = measure([1, 2, 4, 8, 16, 32], trials_max=5)
    assert len(arm.loads) == 5
    assert rates == [4, 8, 16]
