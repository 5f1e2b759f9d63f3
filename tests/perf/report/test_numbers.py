"""Numbers as text: enough digits, never too many, never a lie."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimton.perf.report import numbers
from trimton.perf.results import Interval

FINITE = st.floats(-1e8, 1e8).filter(lambda x: x == 0 or abs(x) > 1e-3)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
        (0.0, "0"),
        (3.14159, "3.14"),
        (31.4159, "31.4"),
        (3141.59, "3,142"),
        (123456, "123,456"),
        (0.0412, "0.0412"),
        (8.3e-7, "8.30e-07"),
        (1.5e15, "1.50e+15"),
        (-2.345, "-2.35"),
    ],
)
def test_numbers_have_three_significant_digits_and_whole_numbers_all(
    value: float | None, text: str
) -> None:
    assert numbers.number_text(value) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (1023, "1,023 B"),
        (512, "512 B"),
        (4_812_544, "4.59 MiB"),
        (1024**3 - 1, "1.00 GiB"),
        (16 * 1024**3, "16.0 GiB"),
        (10**20, "9.09e+07 TiB"),
    ],
)
def test_sizes_have_binary_units(size: float | None, text: str) -> None:
    assert numbers.size_text(size) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "–"), (46, "46"), (999, "999"), (1_190_922, "1.19 M"), (74_382_336, "74.4 M")],
)
def test_counts_have_decimal_units(count: float | None, text: str) -> None:
    assert numbers.count_text(count) == text


@pytest.mark.parametrize(
    ("interval", "texts"),
    [
        (None, ("–", "")),
        (Interval(value=math.nan), ("–", "")),
        (Interval(value=412.34), ("412", "")),
        (Interval(value=412.34, low=405.11, high=419.78), ("412", "[405, 420]")),
        (Interval(value=412.34, low=412.1, high=412.6), ("412.3", "[412.1, 412.6]")),
        (Interval(value=4.3301, low=4.27, high=4.389), ("4.33", "[4.27, 4.39]")),
        (Interval(value=-3.1, low=-4.2, high=-1.9), ("-3.10", "[-4.20, -1.90]")),
        (Interval(value=5e12, low=4e12, high=6e12), ("5.000e+12", "[4.000e+12, 6.000e+12]")),
        (Interval(value=25.31, low=1.24, high=709.8), ("25.3", "[1.2, 709.8]")),
        (Interval(value=0.0, low=-4.2, high=1.9), ("0.000", "[-4.200, 1.900]")),
        (Interval(value=2.0, low=None, high=3.0), ("2.00", "")),
    ],
)
def test_an_interval_and_its_value_share_their_decimals(
    interval: Interval | None, texts: tuple[str, str]
) -> None:
    assert numbers.interval_texts(interval) == texts


def test_shares_are_per_cent_with_two_decimals_so_that_they_subtract() -> None:
    texts = numbers.share_texts(Interval(value=0.9345, low=0.92366, high=0.94534))
    assert texts == ("93.45", "[92.37, 94.53]")
    assert numbers.share_texts(Interval(value=-0.00001)) == ("0.00", "")


@pytest.mark.parametrize(
    ("limit", "text"), [(1.0, "1"), (-0.5, "-0.5"), (100 * 0.07, "7"), (12345.25, "12,345.25")]
)
def test_limits_stand_as_their_author_wrote_them(limit: float, text: str) -> None:
    assert numbers.limit_text(limit) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(None, "–"), (0.2626, "0.26×"), (1.0, "1.00×"), (12.34, "12.3×"), (1e-5, "1.00e-05×")],
)
def test_ratios_are_marked_as_such(ratio: float | None, text: str) -> None:
    assert numbers.ratio_text(ratio) == text


@given(FINITE)
def test_a_printed_number_is_its_value_to_half_a_unit_of_the_third_digit(value: float) -> None:
    printed = float(numbers.number_text(value).replace(",", ""))
    assert printed == pytest.approx(value, rel=0.0051)


@given(FINITE, st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_printed_value_never_leaves_its_printed_interval(
    value: float, below: float, above: float
) -> None:
    interval = Interval(value=value, low=value - below, high=value + above)
    text, bounds = numbers.interval_texts(interval)
    low, high = (float(end) for end in bounds.strip("[]").replace(",", "").split())
    assert low <= float(text.replace(",", "")) <= high
