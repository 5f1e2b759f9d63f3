"""The frame of a chart with two axes: grid, ticks, titles; and the record a template shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from trimton.perf.report.charts import style, svg
from trimton.perf.report.charts.scale import Scale

WIDTH, HEIGHT = 560, 340
LEFT, RIGHT, TOP, BOTTOM = 66, 542, 30, 290


@dataclass(frozen=True)
class LegendEntry:
    """A name with its swatch."""

    name: str
    class_: str
    swatch: Markup


@dataclass(frozen=True)
class Chart:
    """One picture: ``caption`` says how to read it; ``toggles``: its legend hides variants."""

    title: str
    caption: str
    drawing: Markup
    legend: tuple[LegendEntry, ...]
    toggles: bool = True


def axes(x: Scale, y: Scale, x_title: str, y_title: str) -> Markup:
    """Grid, tick labels and titles for scales that span the plot area."""
    rows = [
        svg.line((LEFT, y.at(tick.value)), (RIGHT, y.at(tick.value)), "grid")
        + svg.text(tick.label, LEFT - 8, y.at(tick.value) + 4, "tick", "end")
        for tick in y.ticks
    ]
    columns = [
        svg.line((x.at(tick.value), BOTTOM), (x.at(tick.value), BOTTOM + 5), "axis")
        + svg.text(tick.label, x.at(tick.value), BOTTOM + 20, "tick", "middle")
        for tick in x.ticks
    ]
    frame = svg.line((LEFT, BOTTOM), (RIGHT, BOTTOM), "axis")
    titles = svg.text(y_title, 4, 14, "axis-title") + svg.text(
        x_title, (LEFT + RIGHT) / 2, BOTTOM + 42, "axis-title", "middle"
    )
    return Markup("").join([*rows, *columns, frame, titles])


def drawing(label: str, *parts: Markup, height: float = HEIGHT) -> Markup:
    """The SVG element; ``label`` is what a screen reader says."""
    return svg.element(
        "svg",
        *parts,
        class_="chart",
        viewBox=f"0 0 {WIDTH} {height:g}",
        role="img",
        aria_label=label,
    )


def series(index: int, name: str, *parts: Markup) -> Markup:
    """What belongs to one variant, so that the legend can hide and stress it."""
    return svg.group(*parts, class_=f"series {style.variant_class(index)}", data_variant=name)


def error_bar(x: tuple[float, float], y: tuple[float, float]) -> Markup:
    """A bar from end to end along the longer of the two directions.

    Its ends have caps, except where it was cut at the edge of the plot area.
    """
    (x1, x2), (y1, y2) = x, y
    horizontal = abs(x2 - x1) > abs(y2 - y1)
    across = (0.0, 3.0) if horizontal else (3.0, 0.0)
    caps = [
        svg.line((a - across[0], b - across[1]), (a + across[0], b + across[1]), "error")
        for a, b in ((x1, y1), (x2, y2))
        if (LEFT < a < RIGHT if horizontal else TOP < b < BOTTOM)
    ]
    return Markup("").join([svg.line((x1, y1), (x2, y2), "error"), *caps])


def marker_legend(
    names: Sequence[tuple[int, str]], *, lines: bool = False
) -> tuple[LegendEntry, ...]:
    """Legend of variants with their markers, or with their dashed lines."""
    return tuple(
        LegendEntry(name, style.variant_class(index), _swatch(index, lines))
        for index, name in names
    )


def block_legend(entries: Iterable[tuple[str, str]]) -> tuple[LegendEntry, ...]:
    """Legend of (name, class) with blocks of colour."""
    block = svg.element("rect", x=3, y=2, width=12, height=12, rx=2, class_="block")
    return tuple(LegendEntry(name, class_, _swatch_box(block)) for name, class_ in entries)


def _swatch(index: int, lines: bool) -> Markup:
    if lines:
        return _swatch_box(svg.polyline([(0, 8), (24, 8)], "curve", style.dash(index)), 24)
    return _swatch_box(style.marker(index, 9, 8, 5))


def _swatch_box(content: Markup, width: int = 18) -> Markup:
    return svg.element(
        "svg",
        content,
        class_="swatch",
        viewBox=f"0 0 {width} 16",
        width=width,
        height=16,
        aria_hidden="true",
    )
