"""Ranges chosen from histograms."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimton.core.errors import InputError
from trimton.transforms.quantize.calibration.counter import Counter
from trimton.transforms.quantize.calibration.histogram import EMPTY, Histogram, merged
from trimton.transforms.quantize.encoding import Array, Encoding
from trimton.transforms.quantize.ranges import RANGE_METHODS, activation_encoding, range_method
from trimton.transforms.quantize.ranges.error import clipped_share, mean_squared_error
from trimton.transforms.quantize.ranges.grid import range_encoding
from trimton.transforms.quantize.ranges.mse import mse
from trimton.transforms.quantize.sites import ActivationSite

RNG = np.random.default_rng(7)
SHAPE = (8, 20_000)
VALUES = {
    "normal": RNG.standard_normal(SHAPE),
    "laplace": RNG.laplace(size=SHAPE),
    "relu": np.maximum(RNG.standard_normal(SHAPE), 0),
    "outliers": np.concatenate([RNG.standard_normal(SHAPE) * 0.3 + 1, np.full((8, 2), -9.0)], 1),
    "negative": -np.abs(RNG.standard_normal(SHAPE)) - 1,
    "constant": np.full((8, 3), 2.5),
    "zero": np.zeros((8, 3)),
}
UINT8 = ActivationSite(("x",), ("x",), ir.DataType.UINT8)
INT8 = ActivationSite(("x",), ("x",), ir.DataType.INT8)
SYMMETRIC = ActivationSite(("x",), ("x",), ir.DataType.INT8, symmetric=True)
SITES = (UINT8, INT8, SYMMETRIC)


def counted(values: Array) -> Histogram:
    counter = Counter(1)
    counter.add(values.astype(np.float32), len(values), 0)
    return counter.histogram()


def real_error(values: Array, encoding: Encoding) -> float:
    single = values.astype(np.float32).astype(np.float64)
    return float(((single - encoding.dequantise(encoding.quantise(single))) ** 2).mean())


@pytest.mark.parametrize("site", SITES, ids=["uint8", "int8", "symmetric"])
@pytest.mark.parametrize("name", RANGE_METHODS)
@pytest.mark.parametrize("kind", VALUES)
def test_every_encoding_holds_zero_exactly_and_lies_in_its_type(
    kind: str, name: str, site: ActivationSite
) -> None:
    encoding = activation_encoding(counted(VALUES[kind]), site, range_method(name))
    assert encoding.dtype == site.dtype
    assert encoding.scale.dtype == np.float32
    assert np.isfinite(encoding.scale)
    assert encoding.scale > 0
    assert encoding.dequantise(encoding.quantise(np.zeros(1))) == 0
    if site.symmetric:
        assert encoding.zero_point == 0


@given(st.floats(-100, 0), st.floats(0, 100), st.sampled_from(SITES), st.integers(0, 2**32 - 1))
def test_values_inside_the_range_move_by_half_a_step_at_most(
    low: float, high: float, site: ActivationSite, seed: int
) -> None:
    encoding = range_encoding(low, high, site.dtype, site.symmetric)
    values = np.random.default_rng(seed).uniform(low, high, 50)
    moved = np.abs(encoding.dequantise(encoding.quantise(values)) - values)
    # The zero point is rounded too, so an end of the range may be half a step further in.
    assert (moved <= encoding.scale * 1.001 + 1e-7).all()
    inside = np.abs(values) < 0.49 * max(-low, high)
    assert (moved[inside & (values > low / 2)] <= encoding.scale * 0.5001 + 1e-7).all()


@pytest.mark.parametrize("site", SITES, ids=["uint8", "int8", "symmetric"])
@pytest.mark.parametrize("kind", ["normal", "laplace", "relu", "outliers", "negative"])
@pytest.mark.parametrize("name", RANGE_METHODS)
def test_errors_and_clipping_in_closed_form_are_those_of_the_values(
    kind: str, name: str, site: ActivationSite
) -> None:
    values, histogram = VALUES[kind], counted(VALUES[kind])
    encoding = activation_encoding(histogram, site, range_method(name))
    assert mean_squared_error(histogram.bins(), encoding) == pytest.approx(
        real_error(values, encoding), rel=0.02
    )
    low, high = encoding.limits
    steps = values / float(encoding.scale) + float(encoding.zero_point)
    clipped = ((steps > high + 0.5) | (steps < low - 0.5)).mean()
    assert clipped_share(histogram.bins(), encoding) == pytest.approx(clipped, abs=1e-4)


@pytest.mark.parametrize("site", SITES, ids=["uint8", "int8", "symmetric"])
@pytest.mark.parametrize("kind", ["normal", "laplace", "relu", "outliers", "negative"])
def test_mse_finds_the_least_error_of_all_ranges_tried_one_by_one(
    kind: str, site: ActivationSite
) -> None:
    values, histogram = VALUES[kind][:, ::5], counted(VALUES[kind][:, ::5])
    full = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
    shares = np.linspace(0.2, 1.0, 17)
    tried = [
        real_error(values, range_encoding(a * full[0], b * full[1], site.dtype, site.symmetric))
        for a in (shares if full[0] else [1.0])
        for b in (shares if full[1] else [1.0])
    ]
    chosen = real_error(values, activation_encoding(histogram, site, mse))
    assert chosen <= min(tried) * 1.03


def test_minmax_covers_every_sample_of_every_merged_tensor() -> None:
    histogram = merged([counted(VALUES["normal"]), counted(VALUES["negative"]), EMPTY])
    expected = VALUES["negative"].min(), VALUES["normal"].max()
    assert range_method("minmax")(histogram, UINT8) == pytest.approx(expected)


@pytest.mark.parametrize("percent", [99.0, 99.9])
@pytest.mark.parametrize("kind", ["normal", "laplace", "outliers"])
def test_percentile_leaves_as_much_out_on_either_side(kind: str, percent: float) -> None:
    low, high = range_method("percentile", percent)(counted(VALUES[kind]), UINT8)
    half = (100 - percent) / 200
    assert (VALUES[kind] < low).mean() == pytest.approx(half, rel=0.1)
    assert (VALUES[kind] > high).mean() == pytest.approx(half, rel=0.1)


def test_a_hundred_percent_are_the_extremes() -> None:
    for values in VALUES.values():
        histogram = counted(values)
        low, high = range_method("percentile", 100)(histogram, UINT8)
        assert (low, high) == (histogram.minimum, histogram.maximum)


def test_moving_average_follows_the_order_of_samples_and_forgets_none() -> None:
    tops = np.asarray([[0, 1], [0, 2], [0, 4]])
    weights = np.asarray([0.99**2, 0.99, 1])
    forth = range_method("moving_average")(counted(tops), UINT8)
    back = range_method("moving_average")(counted(tops[::-1]), UINT8)
    assert forth == pytest.approx((0, weights @ [1, 2, 4] / weights.sum()))
    assert back == pytest.approx((0, weights @ [4, 2, 1] / weights.sum()))


def test_entropy_cuts_rare_outliers_off_and_keeps_what_is_even() -> None:
    outliers = np.concatenate([VALUES["relu"], np.full((8, 1), 40.0)], axis=1)
    assert range_method("entropy")(counted(outliers), UINT8)[1] < 10
    even = RNG.uniform(0, 3, SHAPE)
    assert range_method("entropy")(counted(even), UINT8)[1] == pytest.approx(3, rel=0.01)


def divergence(values: Array, threshold: float, levels: int = 255, fine: int = 8192) -> float:
    """KL as its definition says, with fine bins and levels built one by one."""
    top = float(values.max())
    masses, edges = np.histogram(values[values > 0], bins=fine, range=(0, top))
    stop = int(np.searchsorted(edges, threshold))
    reference = masses[:stop].astype(np.float64)
    reference[-1] += masses[stop:].sum()
    candidate = np.zeros(stop)
    places = np.rint(np.arange(levels + 1) / levels * stop).astype(int)
    for start, end in pairwise(places):
        part = masses[start:end]
        candidate[start:end][part > 0] = part.sum() / max((part > 0).sum(), 1)
    used = reference > 0
    p = reference[used] / reference.sum()
    q = np.maximum(candidate[used] / candidate.sum(), 1e-12)
    return float((p * np.log(p / q)).sum())


def test_entropy_diverges_no_more_than_any_threshold_by_the_definition() -> None:
    values = np.abs(RNG.laplace(size=(8, 100_000)))
    _, chosen = range_method("entropy")(counted(values), UINT8)
    shares = np.linspace(0.15, 1, 18)
    tried = [divergence(values, share * float(values.max())) for share in shares]
    assert divergence(values, chosen) <= 1.1 * min(tried)


@settings(max_examples=25)
@given(st.sampled_from(list(RANGE_METHODS)), st.integers(1, 8), st.sampled_from(list(VALUES)))
def test_ranges_do_not_depend_on_how_samples_were_batched(name: str, batch: int, kind: str) -> None:
    values = VALUES[kind][:, :2000]
    parts = [counted(values[i : i + batch]) for i in range(0, len(values), batch)]
    method = range_method(name)
    assert method(merged(parts), UINT8) == method(counted(values), UINT8)


def test_an_empty_histogram_has_an_encoding() -> None:
    for name in RANGE_METHODS:
        assert activation_encoding(EMPTY, UINT8, range_method(name)).scale == 1


def test_a_range_does_not_leave_the_bounds_of_its_site() -> None:
    bounded = partial(ActivationSite, ("x",), ("x",), ir.DataType.UINT8)
    encoding = activation_encoding(
        counted(VALUES["normal"]), bounded(bounds=(0.0, 1.5)), range_method("minmax")
    )
    assert encoding.zero_point == 0
    assert 255 * float(encoding.scale) == pytest.approx(1.5)


def test_an_unknown_method_is_refused_with_all_names() -> None:
    with pytest.raises(InputError, match="unknown calibration method 'max'; take one of minmax"):
        range_method("max")
