"""Scales: from a value to a place on the chart, with ticks at round values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from trimton.perf.report import numbers
from trimton.perf.results import Interval

_ROUND_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_PERCENTILE_TICKS = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)


@dataclass(frozen=True)
class Tick:
    """A labelled value."""

    value: float
    label: str


@dataclass(frozen=True)
class Scale:
    """Maps ``low``..``high``, after ``transform``, to ``start``..``end`` in the chart's units."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[Tick, ...]
    transform: Callable[[float], float] = float

    def at(self, value: float) -> float:
        """The place of ``value``, kept within the scale."""
        low, high = self.transform(self.low), self.transform(self.high)
        share = (self.transform(value) - low) / (high - low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def linear(
    values: Iterable[float], start: float, end: float, *, ticks: int = 5, from_zero: bool = False
) -> Scale:
    """A linear scale around ``values``, out to the next ticks.

    It starts at zero if ``from_zero``, or if that would waste less than half of it.
    """
    found = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(found), max(found)
    if from_zero or 0 <= low < high / 2:
        low = min(low, 0.0)
    if high <= low:
        margin = abs(high) * 0.05 or 0.5
        low, high = (0.0, high) if low == 0 < high else (low - margin, high + margin)
    step = _round_step((high - low) / ticks)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    marks = [index * step for index in range(first, last + 1)]
    return Scale(marks[0], marks[-1], start, end, _labelled(marks, step))


def percentile(highest: float, start: float, end: float) -> Scale:
    """A scale of shares in [0, 1), linear in log(1 / (1 - share)): every nine has equal width."""
    shares = [share for share in _PERCENTILE_TICKS if share <= highest]
    marks = tuple(Tick(share, f"p{share * 100:g}") for share in shares)
    return Scale(0.0, max(highest, 0.5), start, end, marks, _nines)


def span(interval: Interval) -> tuple[float, float] | None:
    """Low and high of ``interval``; None if unknown."""
    if interval.low is None or interval.high is None:
        return None
    return interval.low, interval.high


def ends(intervals: Iterable[Interval]) -> list[float]:
    """Numbers of ``intervals`` for the domain of a scale that shows their values and bars.

    A bar that reaches beyond twice the largest value is cut there: one disturbed percentile
    must not press all others flat.
    """
    known = list(intervals)
    most = 2 * max((i.value for i in known), default=0.0)
    bars = [end for i in known for end in span(i) or ()]
    return [i.value for i in known] + [min(end, most) if most > 0 else end for end in bars]


def _nines(share: float) -> float:
    return -math.log10(1 - share)


def _round_step(rough: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(rough))
    return next(s * magnitude for s in _ROUND_STEPS if rough <= s * magnitude * (1 + 1e-9))


def _labelled(marks: Sequence[float], step: float) -> tuple[Tick, ...]:
    largest = max(abs(mark) for mark in marks)
    if largest >= 1e6 or step < 1e-6:
        return tuple(Tick(mark, numbers.number_text(mark)) for mark in marks)
    decimals = next(d for d in range(9) if abs(round(step, d) - step) < step * 1e-6)
    return tuple(Tick(mark, numbers.fixed_text(mark, decimals)) for mark in marks)
