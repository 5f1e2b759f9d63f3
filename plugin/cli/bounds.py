"""Numbers that options may have."""

from __future__ import annotations

from trimton.core.errors import InputError


def check_within(option: str, value: float | None, low: float, high: float) -> None:
    """Raise InputError for a ``value`` of ``option`` outside its bounds; None is no value."""
    if value is not None and not low <= value <= high:
        raise InputError(f"{option} must lie between {low:g} and {high:g}, not {value:g}.")


def share_of(percentile: float | None) -> float | None:
    """``--percentile`` as a share; InputError unless it lies between 0 and 100."""
    if percentile is None:
        return None
    if not 0 < percentile < 100:
        raise InputError(f"--percentile must lie between 0 and 100, not {percentile:g}.")
    return percentile / 100
