"""Intervals of shares, against exact probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from trimton.perf.stats.proportions import paired_difference, share


@pytest.mark.parametrize(("successes", "samples"), [(0, 10), (3, 10), (10, 10), (1850, 2000)])
def test_wilsons_interval_is_the_one_of_scipy(successes, samples):
    found = share(successes, samples)
    expected = stats.binomtest(successes, samples).proportion_ci(0.95, method="wilson")
    assert found.value == successes / samples
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)


@pytest.mark.parametrize("samples", [30, 200, 2000])
@pytest.mark.parametrize(("only_first", "only_second"), [(0.02, 0.02), (0.05, 0.02), (0.01, 0.0)])
def test_the_paired_interval_covers_the_truth_in_at_least_93_of_100(
    samples, only_first, only_second
):
    generator = np.random.default_rng(1)
    truth = only_first - only_second
    probabilities = [only_first, only_second, 1 - only_first - only_second]
    drawn = generator.multinomial(samples, probabilities, size=2000)
    intervals = [paired_difference(int(a), int(b), samples) for a, b, _ in drawn]
    covered = np.mean([i.low <= truth <= i.high for i in intervals])
    assert covered >= 0.93


def test_no_difference_in_few_samples_is_no_certainty():
    few, many = paired_difference(0, 0, 20), paired_difference(0, 0, 20_000)
    assert few.value == many.value == 0
    assert few.high > 0.05
    assert many.high < 0.001


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="needs"):
        share(3, 2)
    with pytest.raises(ValueError, match="do not fit"):
        paired_difference(5, 6, 10)
