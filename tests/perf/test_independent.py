"""The interval of a ratio of independent readings is Welch's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_ind

from trimton.perf.stats.independent import independent_ratio


def test_the_interval_is_welchs_on_logarithms() -> None:
    variant, baseline = [90.0, 95.0, 93.0, 91.0], [100.0, 104.0, 99.0]

    found = independent_ratio(variant, baseline)

    welch = ttest_ind(np.log(variant), np.log(baseline), equal_var=False).confidence_interval()
    assert found.low == pytest.approx(np.exp(welch.low))
    assert found.high == pytest.approx(np.exp(welch.high))
    assert found.low is not None
    assert found.low < found.value < 1


def test_the_inverse_ratio_has_the_inverse_interval() -> None:
    a, b = [3.0, 3.1, 2.9], [5.0, 5.5, 5.2]

    one, other = independent_ratio(a, b), independent_ratio(b, a)

    assert one.low is not None
    assert other.high is not None
    assert one.low * other.high == pytest.approx(1)


def test_one_reading_gives_no_interval_and_equal_readings_a_point() -> None:
    assert independent_ratio([2.0], [1.0, 1.0]).low is None
    point = independent_ratio([2.0, 2.0], [1.0, 1.0])
    assert (point.low, point.value, point.high) == pytest.approx((2, 2, 2))


def test_readings_that_are_not_positive_are_refused() -> None:
    for variant in ([], [0.0, 1.0]):
        with pytest.raises(ValueError, match="positive"):
            independent_ratio(variant, [1.0])
