"""Throughput round by round, in the order of measuring: drift and noise under every interval."""

from __future__ import annotations

from collections import defaultdict

from markupsafe import Markup

from trimton.perf.report import numbers
from trimton.perf.report.charts import frame, scale, style, svg
from trimton.perf.report.document import RunDocument
from trimton.perf.report.rows import Load, load_of, loads
from trimton.perf.results import LoadWindow

Place = tuple[float, LoadWindow]
_LABELLED_ROUNDS = 12


def charts(document: RunDocument) -> list[frame.Chart]:
    """One chart for each load that has windows."""
    drawn = (_chart(document, load) for load in loads(document))
    return [chart for chart in drawn if chart is not None]


def _chart(document: RunDocument, load: Load) -> frame.Chart | None:
    names = [entry.name for entry in document.variants]
    windows = [w for w in document.windows if load_of(w) == load and w.variant in names]
    if not windows:
        return None
    rounds = sorted({window.round for window in windows})
    x = _round_scale(rounds)
    y = scale.linear((w.throughput_rps for w in windows), frame.BOTTOM, frame.TOP)
    places = _in_order(windows)
    lines = [
        (index, name, [place for place in places if place[1].variant == name])
        for index, name in enumerate(names)
    ]
    bands = [
        svg.line((x.at(number), frame.TOP), (x.at(number), frame.BOTTOM), "grid")
        for number in rounds
    ]
    return frame.Chart(
        title=f"Rounds, {load.text}",
        caption="Each point is one window, in the order of measuring: the variants take turns"
        " within a round, so that drift touches all of them alike.",
        drawing=frame.drawing(
            f"Throughput of every window at {load.text} over {len(rounds)} rounds.",
            *bands,
            frame.axes(x, y, "round", "throughput, infer/s"),
            *(_line(index, name, own, x, y) for index, name, own in lines if own),
        ),
        legend=frame.marker_legend([(index, name) for index, name, own in lines if own]),
    )


def _round_scale(rounds: list[int]) -> scale.Scale:
    every = -(-len(rounds) // _LABELLED_ROUNDS)
    ticks = tuple(scale.Tick(n + 0.5, str(n + 1)) for n in rounds[::every])
    return scale.Scale(rounds[0], rounds[-1] + 1, frame.LEFT, frame.RIGHT, ticks)


def _in_order(windows: list[LoadWindow]) -> list[Place]:
    """Each window at its round plus its turn within the round."""
    turns: dict[int, list[LoadWindow]] = defaultdict(list)
    for window in windows:
        turns[window.round].append(window)
    return [
        (number + (turn + 1) / (len(own) + 1), window)
        for number, own in turns.items()
        for turn, window in enumerate(own)
    ]


def _line(index: int, name: str, places: list[Place], x: scale.Scale, y: scale.Scale) -> Markup:
    ordered = sorted(places, key=lambda place: place[0])
    centres = [(x.at(at), y.at(window.throughput_rps)) for at, window in ordered]
    points = [
        svg.group(svg.tip(_tip(window)), style.marker(index, cx, cy, 4), class_="mark")
        for (_, window), (cx, cy) in zip(ordered, centres, strict=True)
    ]
    return frame.series(index, name, svg.polyline(centres, "curve thin"), *points)


def _tip(window: LoadWindow) -> str:
    rps = numbers.number_text(window.throughput_rps, 4)
    return (
        f"{window.variant}, round {window.round + 1}: {rps} infer/s, {window.requests:,} requests"
    )
