"""The intervals hold what 95 % promises, on data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trimton.perf.stats.bootstrap import (
    estimate,
    mean_of,
    median_of,
    percentile_of,
    ratio,
    resample_weights,
    value_of,
)

rounds_of_values = st.lists(st.floats(0.1, 1e4), min_size=2, max_size=12)


@settings(deadline=None)
@given(rounds_of_values, st.integers(0, 1000))
def test_the_weighted_median_is_the_median_of_the_drawn_rounds(values, seed):
    weights = resample_weights(len(values), seed, resamples=8)
    found = median_of(values)(weights)
    expected = [np.median(np.repeat(values, row)) for row in weights]
    np.testing.assert_allclose(found, expected)


@settings(deadline=None)
@given(rounds_of_values, st.integers(0, 1000))
def test_the_weighted_mean_is_the_mean_of_the_drawn_rounds(values, seed):
    weights = resample_weights(len(values), seed, resamples=8)
    expected = [np.mean(np.repeat(values, row)) for row in weights]
    np.testing.assert_allclose(mean_of(values)(weights), expected)


@settings(deadline=None)
@given(
    st.integers(2, 6),
    st.integers(0, 1000),
    st.sampled_from([0.5, 0.9, 0.95, 0.99]),
)
def test_the_weighted_percentile_is_that_of_all_requests_of_the_drawn_rounds(rounds, seed, share):
    generator = np.random.default_rng(seed)
    values = np.arange(1.0, 31.0)
    counts = generator.integers(0, 20, (rounds, 30))
    counts[:, 0] += 1
    weights = resample_weights(rounds, seed, resamples=8)
    expected = [
        np.quantile(np.repeat(values, row @ counts), share, method="inverted_cdf")
        for row in weights
    ]
    np.testing.assert_allclose(percentile_of(values, counts, share)(weights), expected)


def test_the_interval_of_a_mean_is_students():
    values = np.array([100.0, 103.0, 98.0, 101.0, 99.5, 102.0])
    found = estimate(mean_of(values), len(values), seed=1)
    low, high = stats.t.interval(0.95, 5, values.mean(), stats.sem(values))
    assert found.value == pytest.approx(values.mean())
    # Within the simulation error of 2,000 resamples and the logarithmic scale.
    assert found.low == pytest.approx(low, abs=0.1)
    assert found.high == pytest.approx(high, abs=0.1)


def test_a_ratio_and_its_inverse_have_inverse_intervals():
    a, b = median_of([10.0, 11, 12, 10.5]), median_of([20.0, 21, 19, 23])
    there, back = ratio(a, b, 4, seed=2), ratio(b, a, 4, seed=2)
    assert there.value == pytest.approx(1 / back.value)
    assert there.low == pytest.approx(1 / back.high)
    assert there.high == pytest.approx(1 / back.low)


def test_noise_that_both_arms_share_cancels_because_rounds_are_pairs():
    common = np.array([100.0, 80.0, 120.0, 95.0, 60.0, 110.0])
    found = ratio(mean_of(common * 1.05), mean_of(common), 6, seed=0)
    assert found.value == pytest.approx(1.05)
    assert found.high - found.low < 1e-9


@pytest.mark.parametrize("statistic", [mean_of, median_of])
@pytest.mark.parametrize("rounds", [3, 5, 8])
def test_equal_arms_are_told_apart_in_at_most_one_of_twenty(statistic, rounds):
    generator = np.random.default_rng(7)
    alarms = 0
    trials = 400
    for trial in range(trials):
        a, b = np.exp(generator.normal(0, 0.03, (2, rounds)))
        found = ratio(statistic(a), statistic(b), rounds, seed=trial)
        alarms += not found.low <= 1 <= found.high
    # The upper limit is the 99.9 % quantile of alarms at a true rate of 5 %.
    assert alarms <= stats.binom.ppf(0.999, trials, 0.05)


def test_a_difference_of_five_percent_is_found():
    generator = np.random.default_rng(8)
    found = 0
    for trial in range(50):
        a, b = np.exp(generator.normal(0, 0.01, (2, 8)))
        found += ratio(median_of(a), median_of(1.05 * b), 8, seed=trial).high < 1
    assert found >= 48


def test_one_round_has_no_interval():
    assert estimate(mean_of([5.0]), 1, seed=0).model_dump() == {
        "value": 5.0,
        "low": None,
        "high": None,
    }


def test_the_seed_decides_and_a_value_that_is_not_positive_is_refused():
    values = median_of([1.0, 2.0, 4.0])
    assert estimate(values, 3, seed=5) == estimate(values, 3, seed=5)
    assert value_of(values, 3) == 2.0
    with pytest.raises(ValueError, match="positive"):
        ratio(mean_of([0.0, 0.0]), mean_of([1.0, 1.0]), 2, seed=0)
