"""The ratio of paired rounds, and how wide its intervals are."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trimton.perf.stats.paired import paired_ratio
from trimton.perf.stats.quantiles import PRIOR_ROUNDS, always_valid, fixed, shared_among

positive = st.floats(0.01, 100, allow_nan=False)


@pytest.mark.parametrize("rounds", [3, 5, 8, 12])
def test_a_fixed_interval_misses_the_truth_in_one_of_twenty(rounds):
    generator = np.random.default_rng(7)
    trials, missed = 2000, 0
    for a, b in np.exp(generator.normal(0, 0.03, (trials, 2, rounds))):
        found = paired_ratio(b, a)
        low, high = found.interval(fixed(found.effective_rounds))
        missed += not low <= 1 <= high
    # Between the 0.1 % and 99.9 % quantiles of misses at rates of 4 % and 5 %.
    assert stats.binom.ppf(0.001, trials, 0.04) <= missed <= stats.binom.ppf(0.999, trials, 0.05)


@given(st.lists(st.tuples(positive, positive), min_size=2, max_size=20))
def test_the_ratio_is_that_of_its_two_values_and_turns_over_with_the_arms(pairs):
    a, b = np.array(pairs).T
    there, back = paired_ratio(b, a), paired_ratio(a, b)
    assert there.ratio == pytest.approx(there.variant / there.baseline)
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert there.standard_error == pytest.approx(back.standard_error, abs=1e-12)


def test_few_rounds_are_students_paired_t_test():
    a, b = np.array([100.0, 103, 99, 98]), np.array([104.0, 105, 101, 104])
    low, high = paired_ratio(b, a).interval(fixed(4))
    expected = stats.ttest_rel(np.log(b), np.log(a)).confidence_interval(0.95)
    assert (low, high) == pytest.approx((np.exp(expected.low), np.exp(expected.high)))


def test_many_rounds_are_yuens_trimmed_mean():
    generator = np.random.default_rng(0)
    logs = generator.normal(0.02, 0.03, 20)
    found = paired_ratio(np.exp(logs), np.ones(20))
    assert found.ratio == pytest.approx(np.exp(stats.trim_mean(logs, 0.2)))
    assert found.effective_rounds == pytest.approx(1 + 0.8 * 11)
    # The trimmed two-sample test against a constant is the one-sample one.
    yuen = stats.ttest_ind(logs, np.zeros(20), trim=0.2, equal_var=False)
    assert np.log(found.ratio) / found.standard_error == pytest.approx(yuen.statistic)


def test_a_drift_that_both_arms_share_cancels():
    drift = np.linspace(1, 3, 9)
    low, high = paired_ratio(1.05 * drift, drift).interval(10)
    assert (low, high) == pytest.approx((1.05, 1.05))


def test_one_disturbed_round_does_not_move_the_ratio():
    calm = np.array([1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.01, 1.0])
    hit = calm.copy()
    hit[2] *= 0.3
    before, after = paired_ratio(calm, np.ones(8)), paired_ratio(hit, np.ones(8))
    assert after.ratio == pytest.approx(before.ratio, rel=0.02)
    assert after.standard_error < 2 * before.standard_error


def test_what_is_called_detectable_is_found_four_times_of_five():
    generator = np.random.default_rng(5)
    noise, rounds = 0.02, 7
    typical = paired_ratio(np.exp(noise * stats.norm.ppf((np.arange(7) + 0.5) / 7)), np.ones(7))
    quantile = fixed(typical.effective_rounds)
    detectable = typical.detectable(quantile)
    found = 0
    for _ in range(1000):
        variant = detectable * np.exp(generator.normal(0, noise, rounds))
        found += paired_ratio(variant, np.ones(rounds)).interval(quantile)[0] > 1
    # The true standard error is a little larger than that of the typical sample.
    assert 650 <= found <= 900


def test_one_round_has_no_interval_and_no_value_is_refused():
    one = paired_ratio([2.0], [1.0])
    assert (one.ratio, one.interval(3), one.detectable(3)) == (2.0, None, None)
    for variant, baseline in (([], []), ([1.0], [0.0]), ([1.0], [1.0, 2.0])):
        with pytest.raises(ValueError, match="as many positive values"):
            paired_ratio(variant, baseline)


def bayes_factor(t, rounds):
    """How much likelier Student's statistic is with a random effect than without, by quadrature."""
    effects = np.linspace(-60, 60, 40_001)
    prior = stats.norm.pdf(effects, scale=PRIOR_ROUNDS**-0.5)
    with_effect = stats.nct.pdf(t, rounds - 1, effects * np.sqrt(rounds))
    return np.trapezoid(np.nan_to_num(with_effect) * prior, effects) / stats.t.pdf(t, rounds - 1)


@pytest.mark.parametrize("rounds", [5, 8, 20])
@pytest.mark.parametrize("error_rate", [0.05, 0.01])
def test_the_always_valid_quantile_is_where_the_likelihood_ratio_is_one_over_the_error(
    rounds, error_rate
):
    quantile = always_valid(rounds, error_rate)
    assert bayes_factor(quantile, rounds) == pytest.approx(1 / error_rate, rel=1e-2)


def test_looking_often_costs_width_and_more_questions_cost_more():
    for rounds in range(4, 40):
        assert fixed(rounds) < always_valid(rounds) < shared_among(4)(rounds)
    assert fixed(1) == always_valid(1) == always_valid(3) == inf
