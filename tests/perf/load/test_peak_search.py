"""Peak search on a simulated server: one queue, fixed service time, Poisson arrivals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from trimton.perf.load.peak_search import Objective, Trial, Verdict, search_peak
from trimton.perf.load.schedules import PoissonRate
from trimton.perf.load.span import Span

SERVICE_MS = 2.0


def latencies_ns(rate_rps: float, duration_s: float, seed: int):
    """Scheduled and finished instants of an M/D/1 queue."""
    due = PoissonRate(rate_rps).instants_ns(duration_s, seed)
    service = int(SERVICE_MS * 1e6)
    # Lindley's recursion in closed form: a start is the latest of arrivals shifted by the queue.
    index = np.arange(len(due)) * service
    finished = np.maximum.accumulate(due - index) + index + service
    return due, finished


def simulated(
    objective: Objective, *, failing: Callable[[int], bool] = lambda number: False, seed: int = 0
):
    """Trials as a real load makes them: the verdict is asked 20 times a second."""
    calls = 1000 * seed

    def attempt(rate_rps: float, shortest_s: float) -> Trial:
        nonlocal calls
        calls += 1
        due, finished = latencies_ns(rate_rps, max(2 * shortest_s, 2754 / rate_rps), calls)
        verdict = Verdict(objective, shortest_s)
        span = Span(len(due), limit_ns=objective.latency_ms * 1e6)
        span.open(1)
        next_look = 0
        for number, (start, end) in enumerate(zip(due.tolist(), finished.tolist(), strict=True)):
            if failing(number):
                span.failed(end, "HTTP 500", "")
            else:
                span.answered(start, end, start)
            if end >= next_look:
                next_look = end + 50_000_000
                if verdict.enough(span.progress):
                    break
        span.close(end)
        return verdict.trial(rate_rps, span)

    return attempt


def true_peak(objective: Objective) -> float:
    """By brute force: the highest rate whose percentile over a long time is within the limit."""
    rates = np.arange(100, 500, 5)
    held = []
    for rate in rates:
        due, finished = latencies_ns(rate, 300, 0)
        within = np.quantile((finished - due) / 1e6, objective.percentile) <= objective.latency_ms
        held.append(within)
    return float(rates[np.flatnonzero(held)[-1]])


def found_peak(objective: Objective, start_rps: float, **options) -> float:
    """The median of several searches: one is as uncertain as its trials."""
    peaks = [
        search_peak(
            simulated(objective, seed=seed, **options),
            objective,
            start_rps=start_rps,
            rate_max_rps=1e5,
        )
        for seed in range(7)
    ]
    for peak in peaks:
        assert 1 < peak.broken_rps / peak.rate_rps <= 1.03
    return float(np.median([peak.rate_rps for peak in peaks]))


@pytest.mark.parametrize("limit_ms", [6.0, 15.0, 50.0])
@pytest.mark.parametrize("start_rps", [1.0, 5000.0])
def test_the_peak_is_within_five_percent_of_a_brute_sweep(limit_ms, start_rps):
    objective = Objective(limit_ms)
    assert found_peak(objective, start_rps) == pytest.approx(true_peak(objective), rel=0.05)


def test_a_rate_far_beyond_is_given_up_early_and_a_close_one_is_tried_longer():
    objective = Objective(20.0)
    peak = search_peak(simulated(objective), objective, start_rps=5000, rate_max_rps=1e5)
    far = [t for t in peak.trials if t.rate_rps > 2 * peak.rate_rps]
    assert far
    assert max(t.duration_s for t in far) < peak.trials[-1].duration_s / 4


def test_a_limit_that_no_rate_keeps_has_no_peak():
    objective = Objective(SERVICE_MS / 2, percentile=0.9)

    def attempt(rate_rps: float, shortest_s: float) -> Trial:
        return Trial(rate_rps, 1.0, 50, 50, 0, SERVICE_MS, SERVICE_MS, False, True)

    peak = search_peak(attempt, objective, start_rps=1000, rate_max_rps=1e5)
    assert peak.rate_rps is None
    # It ends where requests are alone: slower arrivals cannot help.
    assert 0.02 <= peak.broken_rps * SERVICE_MS / 1000 < 0.05


def test_a_server_faster_than_the_client_ends_at_the_highest_rate():
    def attempt(rate_rps: float, shortest_s: float) -> Trial:
        return Trial(rate_rps, 1.0, 1000, 0, 0, 1.0, 1.0, True, True)

    peak = search_peak(attempt, Objective(10), start_rps=300, rate_max_rps=1000)
    assert (peak.rate_rps, peak.broken_rps) == (1000, None)
    # The last is believed only after a trial of full length.
    assert [trial.rate_rps for trial in peak.trials] == [300, 600, 1000, 1000]


@pytest.mark.parametrize("start_rps", [20, 800, 3000])
def test_what_holds_only_in_short_trials_is_not_believed(start_rps):
    """A queue that grows slowly: rates from 100 to 1000 break the limit only after a while."""

    def attempt(rate_rps: float, shortest_s: float) -> Trial:
        holds = rate_rps <= 100 or (rate_rps < 1000 and shortest_s < 1.9)
        return Trial(rate_rps, shortest_s, 1000, 0, 0, 10_000, 1.0, holds, True)

    peak = search_peak(attempt, Objective(10), start_rps=start_rps, rate_max_rps=1e5)
    assert peak.rate_rps == pytest.approx(100, rel=0.03)
    assert 1 < peak.broken_rps / peak.rate_rps <= 1.03


def test_one_disturbance_does_not_decide():
    disturbed = []

    def attempt(rate_rps: float, shortest_s: float) -> Trial:
        holds = rate_rps <= 400 and (rate_rps < 200 or bool(disturbed))
        if not holds:
            disturbed.append(rate_rps)
        return Trial(rate_rps, 1.0, 1000, 0, 0, 1.0, 1.0, holds, True)

    peak = search_peak(attempt, Objective(10), start_rps=100, rate_max_rps=1e5)
    assert peak.rate_rps == pytest.approx(400, rel=0.03)


def test_a_long_disturbance_does_not_close_the_bracket_from_above():
    """Everything above 100 breaks for a while; the machine can do 400."""
    tries = 0

    def attempt(rate_rps: float, shortest_s: float) -> Trial:
        nonlocal tries
        tries += 1
        holds = rate_rps <= (100 if tries <= 12 else 400)
        return Trial(rate_rps, 1.0, 1000, 0, 0, 1.0, 1.0, holds, True)

    peak = search_peak(attempt, Objective(10), start_rps=100, rate_max_rps=1e5)
    assert peak.rate_rps == pytest.approx(400, rel=0.03)


def test_errors_break_the_objective_beyond_their_share():
    strict, lenient = Objective(50.0), Objective(50.0, error_share=0.02)

    def failing(number):
        return number % 200 == 199

    attempt = simulated(strict, failing=failing)
    assert search_peak(attempt, strict, start_rps=100, rate_max_rps=1e5).rate_rps is None
    found = found_peak(lenient, 100, failing=failing)
    assert found == pytest.approx(true_peak(lenient), rel=0.05)
