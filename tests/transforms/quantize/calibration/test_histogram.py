"""Histograms over the upper 16 bits of float32."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trimton.transforms.quantize.calibration.counter import STRIDE, WHOLE, Counter
from trimton.transforms.quantize.calibration.histogram import EMPTY, Histogram, merged
from trimton.transforms.quantize.encoding import Array

FLOATS = st.floats(-(2.0**127), 2.0**127, width=32)
SAMPLES = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=FLOATS)


def counted(values: Array, stride: int = 1) -> Histogram:
    counter = Counter(stride)
    assert counter.add(values, len(values), 0) is None
    return counter.histogram()


def same(a: Histogram, b: Histogram) -> bool:
    return np.array_equal(a.counters, b.counters) and np.array_equal(a.extremes, b.extremes)


@given(SAMPLES)
def test_every_value_is_counted_in_a_bin_that_holds_it(values: Array) -> None:
    histogram = counted(values)
    bins = histogram.bins()
    assert histogram.count == bins.count.sum() == values.size
    assert (bins.low[1:] >= bins.high[:-1]).all()
    for low, high, count in zip(bins.low, bins.high, bins.count, strict=True):
        assert ((values >= low) & (values <= high)).sum() >= count


@given(SAMPLES)
def test_bins_are_at_most_a_128th_of_their_values_wide(values: Array) -> None:
    bins = counted(values).bins()
    magnitude = np.maximum(np.abs(bins.low), np.abs(bins.high))
    assert (bins.high - bins.low <= np.maximum(magnitude / 128, np.finfo(np.float32).tiny)).all()


@given(SAMPLES)
def test_extremes_are_exact_for_every_sample(values: Array) -> None:
    histogram = counted(values)
    assert np.array_equal(histogram.extremes, np.stack([values.min(1), values.max(1)], axis=1))
    assert (histogram.minimum, histogram.maximum) == (values.min(), values.max())


@given(st.lists(SAMPLES, min_size=3, max_size=3))
def test_merging_is_associative_and_nothing_is_its_neutral_element(parts: list[Array]) -> None:
    a, b, c = map(counted, parts)
    assert same(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert same(a.merge(EMPTY), a)
    assert same(EMPTY.merge(a), a)


@given(SAMPLES, st.integers(1, 4))
def test_counting_in_parts_and_in_any_order_gives_the_same(values: Array, batch: int) -> None:
    starts = list(range(0, len(values), batch))
    counter = Counter(1)
    for number, start in reversed(list(enumerate(starts))):
        part = values[start : start + batch]
        counter.add(part, len(part), number)
    assert same(counter.histogram(), counted(values))
    assert same(merged([counted(values[s : s + batch]) for s in starts]), counted(values))


@settings(max_examples=20)
@given(st.integers(WHOLE + 1, 3 * WHOLE), st.integers(1, 5))
def test_the_share_of_a_large_sample_depends_on_no_batch(size: int, batch: int) -> None:
    values = np.random.default_rng(size).standard_normal((6, size)).astype(np.float32)
    whole = counted(values, STRIDE)
    parts = merged([counted(values[i : i + batch], STRIDE) for i in range(0, 6, batch)])
    assert same(whole, parts)
    assert whole.count == 6 * STRIDE * len(range(0, size, STRIDE))
    assert (whole.minimum, whole.maximum) == (values.min(), values.max())


def test_samples_up_to_the_limit_are_counted_whole() -> None:
    values = np.random.default_rng(0).standard_normal((3, WHOLE)).astype(np.float32)
    assert same(counted(values, STRIDE), counted(values, 1))


@pytest.mark.parametrize("bad", [None, np.nan, np.inf])
def test_samples_read_in_blocks_are_counted_as_a_whole(bad: float | None) -> None:
    values = np.random.default_rng(1).standard_normal((2, 150_001)).astype(np.float32)
    if bad is not None:
        values[1, 140_000] = bad
    counter = Counter(STRIDE)
    assert counter.add(values, 2, 0) == (None if bad is None else 1)
    if bad is None:
        taken = values[:, ::STRIDE].reshape(-1)
        assert counter.histogram().count == STRIDE * taken.size
        patterns = np.bincount(taken.view(np.uint32) >> 16, minlength=1 << 16)
        assert np.array_equal(counter.histogram().counters, STRIDE * patterns)
        ends = np.stack([values.min(axis=1), values.max(axis=1)], axis=1)
        assert np.array_equal(counter.histogram().extremes, ends)


def test_a_tensor_without_a_batch_axis_is_one_sample_seen_by_all() -> None:
    counter = Counter(1)
    counter.add(np.asarray([1, 5], np.float32).reshape(1, 2), 3, 0)
    counter.add(np.asarray(-2, np.float32), 2, 1)
    assert counter.histogram().extremes.tolist() == [[1, 5]] * 3 + [[-2, -2]] * 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_sample_that_is_not_finite_is_named_and_nothing_counted(bad: float) -> None:
    values = np.ones((4, 3), np.float32)
    values[2:, 1] = bad
    counter = Counter()
    assert counter.add(values, 4, 0) == 2
    assert counter.histogram().count == 0


def test_no_values_make_an_empty_histogram() -> None:
    assert counted(np.zeros((1, 0), np.float32)).count == 0
    assert (EMPTY.minimum, EMPTY.maximum, len(EMPTY.bins().count)) == (0, 0, 0)
