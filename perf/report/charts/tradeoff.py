"""Size, accuracy and speed in one picture: place by size and accuracy, area by throughput."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from trimton.perf.report import numbers
from trimton.perf.report.charts import frame, scale, style, svg
from trimton.perf.report.document import RunDocument
from trimton.perf.report.rows import load_of, loads
from trimton.perf.results import Interval

_LARGEST_RADIUS = 26.0
_UNKNOWN_RADIUS = 9.0
_LABEL_WIDTH, _LABEL_HEIGHT = 60.0, 18.0
_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class _Bubble:
    index: int
    name: str
    size_bytes: int
    quality: Interval
    throughput: Interval | None


def charts(document: RunDocument) -> list[frame.Chart]:
    """One chart; none where neither accuracy nor agreement was measured."""
    labelled = any(q.accuracy is not None for q in document.quality)
    bubbles = _bubbles(document, labelled)
    if not bubbles:
        return []
    quality = "accuracy" if labelled else "agreement with the baseline"
    fastest = max((b.throughput.value for b in bubbles if b.throughput), default=0.0)
    speed = f"throughput at {loads(document)[-1].text}" if fastest else "nothing (no load test)"
    sizes = [b.size_bytes / _MEBIBYTE for b in bubbles]
    # Room at the right, so that a bubble and its label stay inside.
    x = scale.linear([*sizes, max(sizes) * 1.15], frame.LEFT, frame.RIGHT, from_zero=True)
    y = scale.linear(
        [100 * end for end in scale.ends(b.quality for b in bubbles)], frame.BOTTOM, frame.TOP
    )
    placed = [(b, x.at(b.size_bytes / _MEBIBYTE), y.at(100 * b.quality.value)) for b in bubbles]
    drawn = [_draw(b, cx, cy, _radius(b, fastest), y) for b, cx, cy in placed]
    return [
        frame.Chart(
            title=f"Size, {quality} and speed",
            caption=f"Left and up is better. The area of a bubble is {speed}; bars are"
            " 95 % intervals.",
            drawing=frame.drawing(
                f"Size against {quality} of {len(bubbles)} variants; the tables have the figures.",
                frame.axes(x, y, "size of the model, MiB", f"{quality}, %"),
                *drawn,
                *_labels(placed, fastest),
            ),
            legend=frame.marker_legend([(b.index, b.name) for b in bubbles]),
        )
    ]


def _bubbles(document: RunDocument, labelled: bool) -> list[_Bubble]:
    quality = {q.variant: q.accuracy if labelled else q.agreement for q in document.quality}
    top = loads(document)[-1:]
    speed = {lv.variant: lv.throughput_rps for lv in document.levels if load_of(lv) in top}
    return [
        _Bubble(index, entry.name, entry.size_bytes, found, speed.get(entry.name))
        for index, entry in enumerate(document.variants)
        if (found := quality.get(entry.name)) is not None
    ]


def _radius(bubble: _Bubble, fastest: float) -> float:
    if bubble.throughput is None or not fastest:
        return _UNKNOWN_RADIUS
    return max(_LARGEST_RADIUS * math.sqrt(bubble.throughput.value / fastest), 2.0)


def _draw(bubble: _Bubble, cx: float, cy: float, radius: float, y: scale.Scale) -> Markup:
    bar = Markup("")
    if (ends := scale.span(bubble.quality)) is not None:
        bar = frame.error_bar((cx, cx), (y.at(100 * ends[0]), y.at(100 * ends[1])))
    circle = svg.element("circle", cx=cx, cy=cy, r=radius, class_="bubble")
    centre = style.marker(bubble.index, cx, cy)
    mark = svg.group(svg.tip(_tip(bubble)), circle, centre, class_="mark")
    return frame.series(bubble.index, bubble.name, bar, mark)


def _labels(placed: list[tuple[_Bubble, float, float]], fastest: float) -> list[Markup]:
    """Throughputs beside the bubbles, moved down where one would cover another."""
    labels: list[Markup] = []
    taken: list[tuple[float, float]] = []
    for bubble, cx, cy in sorted(placed, key=lambda place: (place[2], place[1])):
        if bubble.throughput is None:
            continue
        left, line = cx + _radius(bubble, fastest) + 5, cy + 4
        while any(abs(left - x) < _LABEL_WIDTH and abs(line - y) < _LABEL_HEIGHT for x, y in taken):
            line += _LABEL_HEIGHT
        taken.append((left, line))
        speed = f"{numbers.interval_texts(bubble.throughput)[0]}/s"
        labels.append(
            frame.series(bubble.index, bubble.name, svg.text(speed, left, line, "bubble-label"))
        )
    return labels


def _tip(bubble: _Bubble) -> str:
    quality = " ".join(numbers.share_texts(bubble.quality)).strip()
    speed = " ".join(numbers.interval_texts(bubble.throughput)).strip()
    parts = [f"{bubble.name}: {quality} %", numbers.size_text(bubble.size_bytes)]
    return ", ".join(parts + ([f"{speed} infer/s"] if bubble.throughput else []))
