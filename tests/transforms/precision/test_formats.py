"""Half formats: what they keep, against numpy and ml_dtypes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimton.transforms.precision.formats import FORMATS, HalfFormat

FLOAT16, BFLOAT16 = FORMATS["float16"], FORMATS["bfloat16"]


@pytest.mark.parametrize("form", FORMATS.values(), ids=list(FORMATS))
def test_limits_are_those_of_the_format(form: HalfFormat) -> None:
    info: Any = ml_dtypes.finfo(form.name)
    assert float(info.max) == form.largest
    assert float(info.eps) == 2 * form.rounding


@given(st.floats(1e-3, 6e4), st.sampled_from(list(FORMATS.values())))
def test_rounding_stays_within_the_error_of_the_format(number: float, form: HalfFormat) -> None:
    array = np.array([number, -number], np.float32)
    kept = form.rounded(array).astype(np.float64)
    error = np.abs(kept - array) / np.abs(array)
    assert error.max() <= form.rounding


CASES: dict[str, tuple[list[float], str | None, str | None]] = {
    "ordinary": ([0.5, -3.0, 0.0], None, None),
    "infinite": ([np.inf, -np.inf, np.nan], None, None),
    "too large": ([7e4, 1.0], "holds 7e+04, and float16 ends at 65504", None),
    "masks": (
        [float(np.finfo(np.float32).min)],
        "holds 3.4e+38, and float16 ends",
        "holds 3.4e+38, and bfloat16 ends",
    ),
    "too small": ([1e-12], "too small for float16, such as 1e-12", None),
    "small beside large": ([1e-12, 1.0], None, None),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_told(case: str) -> None:
    numbers, *expected = CASES[case]
    for form, want in zip((FLOAT16, BFLOAT16), expected, strict=True):
        why = form.obstacle(np.array(numbers, np.float32), each_counts=False)
        assert (why is None) if want is None else (why is not None and want in why)


def test_a_divisor_must_not_become_zero() -> None:
    numbers = np.array([1e-12, 1.0], np.float32)
    assert FLOAT16.obstacle(numbers, each_counts=True) is not None
    assert BFLOAT16.obstacle(numbers, each_counts=True) is None
