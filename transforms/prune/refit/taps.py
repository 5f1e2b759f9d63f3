"""Values inside a model on calibration samples, and which of them judge fits."""

from __future__ import annotations

from trimton.transforms.graph.taps import Feed, Taps

__all__ = ["Feed", "Taps", "is_held_out"]


def is_held_out(number: int) -> bool:
    """Whether batch ``number`` judges fits instead of taking part in them: every fifth."""
    return number % 5 == 4
