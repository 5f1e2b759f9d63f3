"""Interleaving and resuming of rounds, on arms that record how they are called."""

from __future__ import annotations

import pytest

from trimton.core.errors import InputError
from trimton.perf.load.arms import Load, schedules
from trimton.perf.load.rounds import measure_rounds
from trimton.perf.load.schedules import PoissonRate
from trimton.perf.measure.histogram import LatencyHistogram
from trimton.perf.results import LoadWindow


class RecordingArm:
    batch = 1

    def __init__(self, variant: str, calls: list) -> None:
        self.variant = variant
        self.calls = calls

    def measure(self, load: Load) -> LoadWindow:
        self.calls.append((load.round, load.concurrency, self.variant))
        return LoadWindow(
            variant=self.variant,
            concurrency=load.concurrency,
            batch=1,
            round=load.round,
            duration_s=load.window_s,
            requests=1,
            errors={},
            throughput_rps=1.0,
            latency_histogram=LatencyHistogram().encode(),
            latency_mean_ms=1.0,
            client_cpu_us_per_request=1.0,
        )


def run(calls, variants="ab", rounds=4, levels=(1, 4), **options):
    arms = [RecordingArm(variant, calls) for variant in variants]
    settings = {"window_s": 1.0, "warmup_s": 0.0, "seed": 0} | options
    return measure_rounds(arms, levels=levels, rounds=rounds, **settings)


def test_the_arms_of_a_pair_follow_each_other_and_swap_from_round_to_round():
    calls: list = []
    run(calls)
    pairs = [calls[i : i + 2] for i in range(0, len(calls), 2)]
    orders = []
    for first, second in pairs:
        assert first[:2] == second[:2]
        orders.append(first[2] + second[2])
    assert {first[:2] for first, _ in pairs} == {(r, c) for r in range(4) for c in (1, 4)}
    assert orders[0::2] == orders[1::2]
    assert orders[0] != orders[2]
    assert orders[0] == orders[4]


def test_an_interrupted_measurement_goes_on_where_it_stopped():
    class KilledError(Exception):
        pass

    kept: list[LoadWindow] = []

    def interrupt_after_five(window: LoadWindow) -> None:
        kept.append(window)
        if len(kept) == 5:
            raise KilledError

    calls: list = []
    with pytest.raises(KilledError):
        run(calls, on_window=interrupt_after_five)
    windows = run(calls, done=kept, on_window=kept.append)
    whole: list = []
    expected = run(whole)
    assert calls == whole
    assert windows == expected
    assert tuple(kept) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": ()}, "concurrency"),
        ({"levels": (1, 0)}, "concurrency"),
        ({"rounds": 0}, "rounds"),
        ({"window_s": 0}, "window"),
        ({"window_s": float("nan")}, "window"),
        ({"warmup_s": -1}, "warm-up"),
        ({"variants": "aa"}, "different names"),
        ({"variants": ""}, "different names"),
    ],
)
def test_a_plan_that_measures_nothing_is_refused(options, message):
    calls: list = []
    with pytest.raises(InputError, match=message):
        run(calls, **options)
    assert not calls


def test_a_rate_is_a_level_like_any_other_and_all_arms_get_the_same_schedule():
    loads: list[Load] = []

    class Listening(RecordingArm):
        def measure(self, load: Load) -> LoadWindow:
            loads.append(load)
            return (
                super()
                .measure(load)
                .model_copy(update={"arrivals": load.arrivals.name, "rate_rps": 100.0})
            )

    arms = [Listening(variant, []) for variant in "ab"]
    rates = [PoissonRate(100.0)]
    plan = {"levels": rates, "rounds": 3, "window_s": 1.0, "warmup_s": 0.5, "seed": 7}
    windows = measure_rounds(arms, **plan)
    assert {load.concurrency for load in loads} == {0}
    schedules_of_round = [
        [schedules(load)[0].tolist() for load in loads if load.round == index] for index in range(3)
    ]
    assert all(first == second for first, second in schedules_of_round)
    assert len({tuple(first) for first, _ in schedules_of_round}) == 3
    loads.clear()
    assert measure_rounds(arms, **plan, done=windows) == windows
    assert not loads
