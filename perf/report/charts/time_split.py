"""Where the time of a request goes: client and network, then the server's own account of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trimton.perf.report import numbers
from trimton.perf.report.charts import bars, frame
from trimton.perf.report.document import RunDocument
from trimton.perf.report.rows import load_of, ordered_levels
from trimton.perf.results import LevelSummary, ServerStatistics


@dataclass(frozen=True)
class _Phase:
    """A part of a request's way; ``us`` takes the client's mean and the server's statistics."""

    name: str
    class_: str
    us: Callable[[float, ServerStatistics], float]


def _outside(client_us: float, server: ServerStatistics) -> float:
    return client_us - server.request_us


def _around(_: float, server: ServerStatistics) -> float:
    accounted = (
        server.queue_us
        + server.compute_input_us
        + server.compute_infer_us
        + server.compute_output_us
    )
    return server.request_us - accounted


_PHASES: Sequence[_Phase] = (
    _Phase("client, network and HTTP", "p0", _outside),
    _Phase("server, not accounted for", "p1", _around),
    _Phase("queue", "p2", lambda _, server: server.queue_us),
    _Phase("compute input", "p3", lambda _, server: server.compute_input_us),
    _Phase("compute infer", "p4", lambda _, server: server.compute_infer_us),
    _Phase("compute output", "p5", lambda _, server: server.compute_output_us),
)


def charts(document: RunDocument) -> list[frame.Chart]:
    """One chart with all loads; none where no server told its statistics."""
    told = [
        (level, level.server) for _, level in ordered_levels(document) if level.server is not None
    ]
    if not told:
        return []
    rows, heading = [], ""
    for level, server in told:
        load = load_of(level).text
        rows.append(_bar(level, server, heading=load if load != heading else ""))
        heading = load
    return [
        frame.Chart(
            title="Where the time goes",
            caption="Mean per request: the client's latency less the server's own statistics."
            " The total at the end is what the client saw.",
            drawing=bars.stacked(
                "Stacked bars of the mean time per request by phase, for each variant and load.",
                rows,
                "mean time per request, ms",
            ),
            legend=frame.block_legend([(phase.name, phase.class_) for phase in _PHASES]),
            toggles=False,
        )
    ]


def _bar(level: LevelSummary, server: ServerStatistics, heading: str) -> bars.Bar:
    client_ms = level.latency_ms.mean.value
    segments = []
    for phase in _PHASES:
        # The two sides count with different clocks, so a difference can fall below zero.
        milliseconds = max(phase.us(client_ms * 1000, server) / 1000, 0.0)
        text = numbers.number_text(milliseconds)
        tip = f"{level.variant}, {load_of(level).text}: {phase.name} {text} ms"
        segments.append(bars.Segment(milliseconds, phase.class_, text, tip))
    total = f"{numbers.number_text(client_ms)} ms"
    return bars.Bar(level.variant, segments, total, heading)
