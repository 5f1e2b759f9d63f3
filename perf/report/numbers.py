"""Numbers as text: as many digits as the measurement supports, and no more.

Every renderer prints through these functions, so that a figure reads the same in the
terminal, in Markdown and in HTML.
"""

from __future__ import annotations

import math

from trimton.perf.results import Interval

MISSING = "–"

_MOST_DECIMALS = 6
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_DECIMAL_UNITS = ("", "k", "M", "G", "T")


def number_text(value: float | None, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits and thousands separators; – for no value.

    Integers below a million keep all their digits; very large and very small magnitudes turn
    to scientific notation.
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
    return min(max(digits - 1 - math.floor(math.log10(abs(magnitude))), 0), _MOST_DECIMALS)


def interval_decimals(interval: Interval, digits: int = 4) -> int:
    """Decimals that resolve the interval to two digits, at most ``digits`` digits of the value."""
    widest = max(abs(x) for x in (interval.value, interval.low, interval.high) if x is not None)
    most = decimals_for(widest, digits)
    if interval.low is None or interval.high is None or interval.high <= interval.low:
        return min(most, decimals_for(widest, 3))
    return min(most, decimals_for((interval.high - interval.low) / 2, 2))


def interval_texts(interval: Interval | None, scale: float = 1.0) -> tuple[str, str]:
    """``("412.3", "[405.1, 419.8]")`` with common decimals, multiplied by ``scale``.

    The second text is empty where the interval is unknown.
    """
    if interval is None or not math.isfinite(interval.value):
        return MISSING, ""
    scaled = Interval(
        value=interval.value * scale,
        low=None if interval.low is None else interval.low * scale,
        high=None if interval.high is None else interval.high * scale,
    )
    bounds = [x for x in (scaled.low, scaled.high) if x is not None and math.isfinite(x)]
    if any(abs(x) >= 1e9 for x in (scaled.value, *bounds)):
        value, *ends = (f"{x:.3e}" for x in (scaled.value, *bounds))
    else:
        decimals = interval_decimals(scaled)
        value, *ends = (fixed_text(x, decimals) for x in (scaled.value, *bounds))
    return value, f"[{ends[0]}, {ends[1]}]" if len(ends) == 2 else ""


def percent_text(share: float | None, decimals: int = 2) -> str:
    """A share in [0, 1] as per cent, without the sign."""
    if share is None or not math.isfinite(share):
        return MISSING
    return fixed_text(share * 100, decimals)


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
