"""Stacked horizontal bars, each under its own label, so that long names have the whole width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from trimton.perf.report.charts import frame, scale, svg

_LEFT, _RIGHT, _TOP = 4.0, 480.0, 8.0
_ROW, _BAR, _GAP = 44.0, 16.0, 26.0
_NAME_MOST = 64
_WIDE_ENOUGH = 34.0


@dataclass(frozen=True)
class Segment:
    """A part of a bar: its length, the text inside it, and the text of its tip."""

    length: float
    class_: str
    text: str
    tip: str


@dataclass(frozen=True)
class Bar:
    """A bar with its label above and its total at the end; ``heading`` opens a group of bars."""

    label: str
    segments: Sequence[Segment]
    total: str
    heading: str = ""


def stacked(label: str, bars: Sequence[Bar], axis_title: str) -> Markup:
    """The drawing of ``bars`` from top to bottom, all on one scale from zero."""
    totals = [sum(segment.length for segment in bar.segments) for bar in bars]
    x = scale.linear([0.0, *totals], _LEFT, _RIGHT, from_zero=True)
    headings = sum(bool(bar.heading) for bar in bars)
    bottom = _TOP + _ROW * len(bars) + _GAP * headings
    grid = [
        svg.line((x.at(tick.value), _TOP), (x.at(tick.value), bottom), "grid")
        + svg.text(tick.label, max(x.at(tick.value), 8), bottom + 16, "tick", "middle")
        for tick in x.ticks
    ]
    title = svg.text(axis_title, (_LEFT + _RIGHT) / 2, bottom + 38, "axis-title", "middle")
    drawn, top = [], _TOP
    for bar, total in zip(bars, totals, strict=True):
        if bar.heading:
            drawn.append(svg.text(bar.heading, _LEFT, top + 16, "bar-heading"))
            top += _GAP
        drawn.append(_bar(bar, total, top, x))
        top += _ROW
    return frame.drawing(label, *grid, title, *drawn, height=bottom + 48)


def _bar(bar: Bar, total: float, top: float, x: scale.Scale) -> Markup:
    parts = [svg.text(svg.shortened(bar.label, _NAME_MOST), _LEFT, top + 15, "bar-label")]
    begin = 0.0
    for segment in bar.segments:
        left, right = x.at(begin), x.at(begin + segment.length)
        begin += segment.length
        if right - left < 0.05:
            continue
        block = svg.element(
            "rect",
            svg.tip(segment.tip),
            x=left,
            y=top + 21,
            width=right - left,
            height=_BAR,
            class_=f"block mark {segment.class_}",
        )
        parts.append(block)
        if right - left > max(_WIDE_ENOUGH, 7.5 * len(segment.text)):
            at = (left + right) / 2
            parts.append(svg.text(segment.text, at, top + 33, f"inside {segment.class_}", "middle"))
    parts.append(svg.text(bar.total, x.at(total) + 6, top + 33, "bar-total"))
    return svg.group(*parts)
