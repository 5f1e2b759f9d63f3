"""The end of a warm-up is found where there is one, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from trimton.perf.load.arms import Load
from trimton.perf.load.warmup import find_warmup, steady_from
from trimton.perf.measure.histogram import LatencyHistogram
from trimton.perf.results import LoadWindow


def noisy(levels: list[tuple[int, float]], seed: int = 0):
    """So many slices at each level, with 10 % of noise."""
    generator = np.random.default_rng(seed)
    means = np.concatenate([np.full(count, level) for count, level in levels])
    return (means * np.exp(0.1 * generator.standard_normal(len(means)))).tolist()


def test_one_level_is_steady_from_the_start():
    found = [steady_from(noisy([(40, 3.0)], seed)) for seed in range(200)]
    assert sum(start > 0 for start in found) <= 10


@pytest.mark.parametrize("cold", [5, 10, 20])
def test_a_cold_start_ends_where_the_level_changes(cold):
    for seed in range(20):
        assert steady_from(noisy([(cold, 9.0), (30, 3.0)], seed)) == pytest.approx(cold, abs=1)


def test_the_last_of_several_changes_counts():
    assert steady_from(noisy([(6, 30.0), (8, 9.0), (30, 3.0)])) == pytest.approx(14, abs=1)


def test_one_slow_slice_is_no_level():
    values = noisy([(30, 3.0)])
    values[10] = 12.0
    assert steady_from(values) == 0


class WarmingArm:
    variant = "m"
    batch = 1

    def __init__(self, means):
        self.means = means
        self.loads: list[Load] = []

    def measure(self, load: Load) -> LoadWindow:
        self.loads.append(load)
        return LoadWindow(
            variant="m",
            concurrency=load.concurrency,
            batch=1,
            round=load.round,
            duration_s=load.window_s,
            requests=1,
            errors={},
            throughput_rps=1.0,
            latency_histogram=LatencyHistogram().encode(),
            latency_mean_ms=self.means[len(self.loads) - 1],
            client_cpu_us_per_request=1.0,
        )


def test_a_warm_server_is_soon_known_to_be_warm():
    arm = WarmingArm(noisy([(200, 3.0)]))
    warmup = find_warmup(arm, 2)
    assert warmup.found
    assert warmup.seconds == 0
    assert 20 <= len(arm.loads) <= 21
    assert {load.concurrency for load in arm.loads} == {2}


def test_a_cold_server_is_loaded_until_it_has_been_warm_for_as_long():
    arm = WarmingArm(noisy([(12, 9.0), (200, 3.0)]))
    warmup = find_warmup(arm, 1)
    assert warmup.found
    assert warmup.seconds == pytest.approx(1.2, abs=0.11)
    assert len(arm.loads) >= 24


def test_a_server_that_never_settles_is_told_apart():
    arm = WarmingArm(np.geomspace(1, 1000, 400).tolist())
    warmup = find_warmup(arm, 1, limit_s=5.0)
    assert not warmup.found
    assert warmup.seconds == pytest.approx(5.0)
