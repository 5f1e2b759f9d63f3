"""Latency against throughput: one line per variant, one point per load."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from trimton.perf.report import numbers
from trimton.perf.report.charts import frame, scale, style, svg
from trimton.perf.report.document import RunDocument
from trimton.perf.report.rows import load_of
from trimton.perf.results import Interval, LevelSummary

_NAMES = {"p50": "median latency", "p90": "p90 latency", "p95": "p95 latency", "p99": "p99 latency"}
_TAILS = ("p99", "p95", "p90")

Place = tuple[LevelSummary, Interval]


def charts(document: RunDocument) -> list[frame.Chart]:
    """The median, and the furthest tail percentile that every level has enough requests for."""
    levels = document.levels
    tail = next((name for name in _TAILS if all(_latency(level, name) for level in levels)), None)
    shown = [name for name in ("p50", tail) if name and any(_latency(lv, name) for lv in levels)]
    return [_chart(document, name) for name in shown]


def _chart(document: RunDocument, percentile: str) -> frame.Chart:
    lines: list[tuple[int, str, list[Place]]] = []
    for index, entry in enumerate(document.variants):
        own = sorted((lv for lv in document.levels if lv.variant == entry.name), key=load_of)
        places = [(lv, latency) for lv in own if (latency := _latency(lv, percentile))]
        if places:
            lines.append((index, entry.name, places))
    every = [place for _, _, places in lines for place in places]
    x = scale.linear(scale.ends(lv.throughput_rps for lv, _ in every), frame.LEFT, frame.RIGHT)
    y = scale.linear(scale.ends(latency for _, latency in every), frame.BOTTOM, frame.TOP)
    title = f"Throughput and {_NAMES[percentile]}"
    return frame.Chart(
        title=title,
        caption="Right and down is better. The number at a point is its concurrency; bars are"
        " 95 % intervals over rounds, cut where they reach the edge.",
        drawing=frame.drawing(
            f"{title} of {len(lines)} variants; the table of speed has the figures.",
            frame.axes(x, y, "throughput, infer/s", f"{_NAMES[percentile]}, ms"),
            *(_line(index, name, places, x, y) for index, name, places in lines),
        ),
        legend=frame.marker_legend([(index, name) for index, name, _ in lines]),
    )


def _line(index: int, name: str, places: Sequence[Place], x: scale.Scale, y: scale.Scale) -> Markup:
    centres = [(x.at(lv.throughput_rps.value), y.at(latency.value)) for lv, latency in places]
    bars, points = [], []
    for (level, latency), (cx, cy) in zip(places, centres, strict=True):
        if (across := scale.span(level.throughput_rps)) is not None:
            bars.append(frame.error_bar((x.at(across[0]), x.at(across[1])), (cy, cy)))
        if (along := scale.span(latency)) is not None:
            bars.append(frame.error_bar((cx, cx), (y.at(along[0]), y.at(along[1]))))
        rps = " ".join(numbers.interval_texts(level.throughput_rps)).strip()
        milliseconds = " ".join(numbers.interval_texts(latency)).strip()
        label = f"{name}, {load_of(level).text}: {rps} infer/s, {milliseconds} ms"
        points.append(
            svg.group(svg.tip(label), style.marker(index, cx, cy), class_="mark")
            + svg.text(str(level.concurrency), cx + 8, cy - 7, "point-label")
        )
    return frame.series(index, name, svg.polyline(centres, "curve"), *bars, *points)


def _latency(level: LevelSummary, percentile: str) -> Interval | None:
    found: Interval | None = getattr(level.latency_ms, percentile)
    return found
