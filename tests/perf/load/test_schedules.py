"""Schedules are what their names say, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trimton.perf.load.schedules import ConstantRate, PoissonRate, Ramp, Trace

ALL = [ConstantRate(50), PoissonRate(50), Ramp(10, 90, 9), Ramp(90, 0, 9), Ramp(0, 100, 9)]


@pytest.mark.parametrize("arrivals", ALL, ids=lambda a: f"{a.name}{a.rate_rps}")
@given(duration_s=st.floats(0.5, 20), seed=st.integers(0, 2**32 - 1))
def test_instants_ascend_within_the_duration_and_repeat_with_the_seed(arrivals, duration_s, seed):
    instants = arrivals.instants_ns(duration_s, seed)
    assert instants.dtype == np.int64
    assert len(instants) >= 1
    assert 0 <= instants[0] <= instants[-1] < duration_s * 1e9
    assert (np.diff(instants) >= 0).all()
    assert np.array_equal(instants, arrivals.instants_ns(duration_s, seed))


@pytest.mark.parametrize("arrivals", ALL, ids=lambda a: f"{a.name}{a.rate_rps}")
def test_a_number_of_requests_is_scheduled_exactly(arrivals):
    instants = arrivals.first_ns(17, 5)
    assert len(instants) == 17
    assert (np.diff(instants) >= 0).all()
    assert np.array_equal(instants, arrivals.first_ns(17, 5))


def test_so_many_poisson_requests_have_exponential_gaps():
    gaps_s = np.diff(PoissonRate(100).first_ns(5000, 1)) / 1e9
    assert stats.kstest(gaps_s, "expon", args=(0, 1 / 100)).pvalue > 0.01


def test_a_constant_rate_is_evenly_spaced():
    assert ConstantRate(200).instants_ns(0.02, 0).tolist() == [0, 5_000_000, 10_000_000, 15_000_000]


def test_poisson_arrivals_have_exponential_gaps_and_the_right_rate():
    instants = PoissonRate(1000).instants_ns(20, 3)
    gaps_s = np.diff(instants) / 1e9
    assert stats.kstest(gaps_s, "expon", args=(0, gaps_s.mean())).pvalue > 0.01
    assert len(instants) == pytest.approx(20_000, abs=4 * 20_000**0.5)


def test_poisson_arrivals_differ_between_seeds():
    rate = PoissonRate(100)
    assert not np.array_equal(rate.instants_ns(1, 1)[:50], rate.instants_ns(1, 2)[:50])


@pytest.mark.parametrize(("start", "end"), [(10, 90), (90, 10), (0, 100), (50, 50)])
def test_a_ramp_has_sent_the_integral_of_its_rate_at_every_instant(start, end):
    ramp = Ramp(start, end, 10)
    seconds = ramp.instants_ns(10, 0) / 1e9
    integral = start * seconds + (end - start) / 10 * seconds**2 / 2
    assert np.allclose(integral, np.arange(len(seconds)), atol=1e-5)
    assert len(seconds) == (start + end) / 2 * 10
    assert ramp.duration_s(3) == 10


def test_a_trace_is_replayed_as_it_was_and_cut_to_the_duration():
    trace = Trace(np.array([0, 5, 1_000_000_000, 2_000_000_000]))
    assert trace.rate_rps == pytest.approx(1.5)
    assert trace.instants_ns(1.5, 0).tolist() == [0, 5, 1_000_000_000]
    whole = trace.instants_ns(trace.duration_s(0.1), 0)
    assert len(whole) == 4
