"""Latency by percentile, as HdrHistogram plots it: every further nine takes the same width."""

from __future__ import annotations

from trimton.perf.report import numbers
from trimton.perf.report.charts import frame, scale, style, svg
from trimton.perf.report.document import RunDocument
from trimton.perf.report.percentiles import PercentileCurve, percentile_curve
from trimton.perf.report.rows import Load, load_of, loads

_TIPS = (0.5, 0.9, 0.95, 0.99, 0.999)


def charts(document: RunDocument) -> list[frame.Chart]:
    """One chart for each load."""
    drawn = (_chart(document, load) for load in loads(document))
    return [chart for chart in drawn if chart is not None]


def _chart(document: RunDocument, load: Load) -> frame.Chart | None:
    curves: list[tuple[int, str, PercentileCurve]] = []
    for index, entry in enumerate(document.variants):
        windows = [w for w in document.windows if w.variant == entry.name and load_of(w) == load]
        curve = percentile_curve(windows)
        if curve is not None:
            curves.append((index, entry.name, curve))
    if not curves:
        return None
    points = [point for _, _, curve in curves for point in curve.points]
    x = scale.percentile(max(share for share, _ in points), frame.LEFT, frame.RIGHT)
    y = scale.linear((latency for _, latency in points), frame.BOTTOM, frame.TOP)
    return frame.Chart(
        title=f"Latency distribution, {load.text}",
        caption="All rounds together. A curve ends where too few requests lie behind it.",
        drawing=frame.drawing(
            f"Latency by percentile at {load.text} for {len(curves)} variants;"
            " the table of speed has the figures.",
            frame.axes(x, y, "percentile of requests", "latency, ms"),
            *(
                frame.series(
                    index,
                    name,
                    svg.group(
                        svg.tip(_tip(name, curve)),
                        svg.polyline(
                            [(x.at(s), y.at(ms)) for s, ms in curve.points],
                            "curve",
                            style.dash(index),
                        ),
                        class_="mark",
                    ),
                )
                for index, name, curve in curves
            ),
        ),
        legend=frame.marker_legend([(index, name) for index, name, _ in curves], lines=True),
    )


def _tip(name: str, curve: PercentileCurve) -> str:
    reached = curve.points[-1][0]
    shown = [share for share in _TIPS if share <= reached]
    parts = [f"p{share * 100:g} {numbers.number_text(_at(curve, share))} ms" for share in shown]
    return f"{name}: {', '.join(parts)} ({curve.requests:,} requests)"


def _at(curve: PercentileCurve, share: float) -> float:
    return min(curve.points, key=lambda point: abs(point[0] - share))[1]
