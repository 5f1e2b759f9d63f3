"""Latency histograms: precise to three digits, mergeable, silent where data are too few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trimton.perf.measure.histogram import LatencyHistogram, requests_needed

latencies_ns = st.lists(st.integers(1_000, 10**11), min_size=1, max_size=300)


def histogram_of(values) -> LatencyHistogram:
    histogram = LatencyHistogram()
    histogram.record_ns(values)
    return histogram


@pytest.mark.parametrize(
    ("percentile", "needed"), [(0.90, 44), (0.95, 90), (0.99, 459), (0.999, 4603)]
)
def test_requests_needed_are_those_of_loadgen(percentile, needed):
    assert requests_needed(percentile) == needed
    assert stats.binom.cdf(0, needed, 1 - percentile) <= 0.01
    assert stats.binom.cdf(0, needed - 1, 1 - percentile) > 0.01


@settings(deadline=None)
@given(latencies_ns)
def test_percentiles_are_within_a_thousandth_of_the_exact_ones(values):
    repeated = np.tile(values, 500)
    histogram = histogram_of(repeated)
    assert len(histogram) == len(repeated)
    for share in (0.5, 0.9, 0.95, 0.99):
        exact_us = np.quantile(np.rint(repeated / 1000), share, method="inverted_cdf")
        assert histogram.percentile_ms(share) == pytest.approx(exact_us / 1000, rel=1e-3)


def test_a_percentile_without_enough_requests_is_none():
    histogram = histogram_of(np.arange(1, 459) * 1_000_000)
    assert histogram.percentile_ms(0.99) is None
    histogram.record_ns([459_000_000])
    assert histogram.percentile_ms(0.99) == pytest.approx(455, rel=1e-3)


@settings(deadline=None, max_examples=30)
@given(latencies_ns, latencies_ns)
def test_merging_is_recording_both_and_encoding_loses_nothing(first, second):
    merged = LatencyHistogram.merged([histogram_of(first), histogram_of(second)])
    together = histogram_of(first + second)
    restored = LatencyHistogram.decode(merged.encode())
    for histogram in (merged, restored):
        assert len(histogram) == len(together)
        for mine, expected in zip(histogram.buckets(), together.buckets(), strict=True):
            np.testing.assert_array_equal(mine, expected)


def test_buckets_are_in_milliseconds_and_ascend():
    values, counts = histogram_of([5_000_000, 1_000_000, 5_000_000]).buckets()
    np.testing.assert_allclose(values, [1.0, 5.0], rtol=1e-3)
    assert counts.tolist() == [1, 2]


def test_latencies_beyond_the_range_count_at_its_ends():
    histogram = histogram_of([1, 10**16])
    assert len(histogram) == 2


def test_an_empty_histogram_travels_too():
    restored = LatencyHistogram.decode(LatencyHistogram().encode())
    assert len(restored) == 0
    assert restored.percentile_ms(0.5) is None
