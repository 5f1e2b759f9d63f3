"""Numbers as text: as many digits as the measurement supports, and no more.

Every renderer prints through these functions, so that a figure reads the same in the
terminal, in Markdown and in HTML.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from trimton.perf.results import Interval

MISSING = "–"

_MOST_DECIMALS = 6
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_DECIMAL_UNITS = ("", "k", "M", "G", "T")


def number_text(value: float | None, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits and thousands separators; – for no value.

    Digits before the point are never rounded away; from 1e9 on, and below 1e-4, the notation is
    scientific.
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude >= 1e9 or magnitude < 1e-4:
        return f"{value:.{digits - 1}e}"
    return fixed_text(value, decimals_for(magnitude, digits))


def fixed_text(value: float, decimals: int) -> str:
    """``value`` with exactly ``decimals`` decimals and thousands separators, never "-0"."""
    text = f"{value:,.{decimals}f}"
    return text.removeprefix("-") if not text.strip("-0.,") else text


def decimals_for(magnitude: float, digits: int) -> int:
    """The decimals that show ``digits`` significant digits of ``magnitude``."""
    if magnitude == 0 or not math.isfinite(magnitude):
        return 0
    # Rounded first: 0.9996 with three digits is 1.00, not 1.000.
    exponent = int(f"{magnitude:.{digits - 1}e}".partition("e")[2])
    return min(max(digits - 1 - exponent, 0), _MOST_DECIMALS)


def interval_decimals(interval: Interval) -> int:
    """Decimals that show three digits of the value, or four if the interval is that narrow.

    A value that is small beside its own interval gets the digits of a tenth of the interval.
    """
    if interval.low is None or interval.high is None or interval.high <= interval.low:
        return decimals_for(abs(interval.value), 3)
    half = (interval.high - interval.low) / 2
    magnitude = max(abs(interval.value), half / 10)
    most = decimals_for(magnitude, 4)
    return min(max(decimals_for(magnitude, 3), decimals_for(half, 1)), most)


def interval_texts(interval: Interval | None) -> tuple[str, str]:
    """``("412.3", "[405.1, 419.8]")`` with common decimals; – and "" for no interval.

    The second text is empty where the bounds are unknown.
    """
    if interval is None or not math.isfinite(interval.value):
        return MISSING, ""
    if abs(interval.value) >= 1e9:
        return _texts(interval, lambda x: f"{x:.3e}")
    decimals = interval_decimals(interval)
    return _texts(interval, lambda x: fixed_text(x, decimals))


def share_texts(interval: Interval | None) -> tuple[str, str]:
    """A share in [0, 1], or a difference of two, in per cent: always two decimals.

    Fixed decimals, because readers subtract such figures from one another.
    """
    if interval is None or not math.isfinite(interval.value):
        return MISSING, ""
    return _texts(interval, lambda x: fixed_text(x * 100, 2))


def limit_text(limit: float) -> str:
    """A limit as the policy's author wrote it: no rounding to the eye, no padding."""
    return f"{limit:,.10g}"


def size_text(size_bytes: float | None) -> str:
    """Bytes with a binary unit, three digits."""
    return _with_unit(size_bytes, 1024, _BINARY_UNITS)


def count_text(count: float | None) -> str:
    """A count with a decimal unit (k, M, G, T), three digits."""
    return _with_unit(count, 1000, _DECIMAL_UNITS)


def ratio_text(ratio: float | None) -> str:
    """A ratio to the baseline, as ``0.26×``."""
    if ratio is None or not math.isfinite(ratio):
        return MISSING
    if ratio == 0 or 0.01 <= ratio < 1000:
        return f"{fixed_text(ratio, 2 if ratio < 10 else 1)}×"
    return f"{number_text(ratio)}×"


def ratio_interval_text(interval: tuple[float, float] | None) -> str:
    """The interval of a ratio, as ``[0.95, 1.02]``; empty if unknown."""
    if interval is None:
        return ""
    low, high = (ratio_text(bound).removesuffix("×") for bound in interval)
    return f"[{low}, {high}]"


def _texts(interval: Interval, text: Callable[[float], str]) -> tuple[str, str]:
    bounds = [x for x in (interval.low, interval.high) if x is not None and math.isfinite(x)]
    joined = ", ".join(text(bound) for bound in bounds)
    return text(interval.value), f"[{joined}]" if len(bounds) == 2 else ""


def _with_unit(value: float | None, step: int, units: tuple[str, ...]) -> str:
    if value is None or not math.isfinite(value):
        return MISSING
    scaled, unit = float(value), 0
    # 999.6 k would read "1,000 k": it becomes 1.00 of the next unit.
    while abs(scaled) >= step - 0.5 and unit < len(units) - 1:
        scaled, unit = scaled / step, unit + 1
    decimals = decimals_for(scaled, 3) if unit else 0
    number = f"{scaled:.2e}" if abs(scaled) >= 1e6 else fixed_text(scaled, decimals)
    return f"{number} {units[unit]}".rstrip()
