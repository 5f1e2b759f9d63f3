"""Early stopping knows LoadGen's numbers, and errs as rarely as it promises."""

from __future__ import annotations

import numpy as np
import pytest

from trimton.perf.load.early_stopping import Looks, limit_holds


@pytest.mark.parametrize(
    ("percentile", "broken", "needed"),
    [(0.9, 0, 44), (0.9, 1, 64), (0.9, 10, 197), (0.95, 0, 90), (0.99, 0, 459), (0.99, 1, 662)],
)
def test_as_many_requests_are_needed_as_loadgen_says(percentile, broken, needed):
    share = 1 - percentile
    assert limit_holds(broken, needed, share) is True
    assert limit_holds(broken, needed - 1, share) is None


def test_many_breaks_decide_early():
    assert limit_holds(3, 5, 0.01) is False
    assert limit_holds(0, 5, 0.01) is None


def test_a_share_of_zero_is_settled_by_one_break():
    assert limit_holds(0, 1, 0.0) is True
    assert limit_holds(1, 10**6, 0.0) is False


@pytest.mark.parametrize(("true_share", "wrong"), [(0.02, True), (0.005, False)])
def test_wrong_decisions_are_rare(true_share, wrong):
    generator = np.random.default_rng(0)
    mistakes = 0
    for _ in range(200):
        breaks = np.cumsum(generator.random(20_000) < true_share)
        looks, verdict, total = Looks(20), None, 0
        while verdict is None and total < len(breaks):
            total += 1
            if looks.is_due(total):
                verdict = limit_holds(int(breaks[total - 1]), total, 0.01)
        mistakes += verdict is wrong
    assert mistakes <= 12
