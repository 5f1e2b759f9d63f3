"""perf_analyzer's CSV: its columns in its order, ours after them.

Source: its documentation of ``-f`` and the files it writes; times are whole microseconds, rows
ascend by throughput. Client Send and Client Recv are 0: requests are prepared before the load
and answers are not unpacked, so all of the client's time is in Network+Server Send/Recv, which is
the latency less what the server accounts for.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from trimton.core.errors import InputError
from trimton.perf.measure.histogram import PERCENTILES
from trimton.perf.results import Interval, LevelSummary, ServerStatistics

Cell = str | int | float

_CONCURRENCY = "Concurrency"
_REQUEST_RATE = "Request Rate"


def _server(field: str) -> Callable[[LevelSummary], Cell]:
    def cell(level: LevelSummary) -> Cell:
        return int(getattr(level.server, field)) if level.server else ""

    return cell


def _network_us(level: LevelSummary) -> Cell:
    latency_us = level.latency_ms.mean.value * 1000
    return max(0, int(latency_us - (_accounted_us(level.server) if level.server else 0)))


def _accounted_us(server: ServerStatistics) -> float:
    return (
        server.queue_us
        + server.compute_input_us
        + server.compute_infer_us
        + server.compute_output_us
    )


def _latency(name: str) -> Callable[[LevelSummary], Cell]:
    return lambda level: _microseconds(getattr(level.latency_ms, name))


def _service(name: str) -> Callable[[LevelSummary], Cell]:
    return lambda level: _microseconds(getattr(level.service_ms, name, None))


def _microseconds(value: Interval | None) -> Cell:
    """Empty where too few requests support the figure."""
    return "" if value is None else int(value.value * 1000)


def _bound(side: str) -> Callable[[LevelSummary], Cell]:
    def cell(level: LevelSummary) -> Cell:
        bound = getattr(level.throughput_rps, side)
        return "" if bound is None else round(bound, 3)

    return cell


_COLUMNS: dict[str, Callable[[LevelSummary], Cell]] = {
    "Inferences/Second": lambda level: round(level.throughput_rps.value, 3),
    "Client Send": lambda level: 0,
    "Network+Server Send/Recv": _network_us,
    "Server Queue": _server("queue_us"),
    "Server Compute Input": _server("compute_input_us"),
    "Server Compute Infer": _server("compute_infer_us"),
    "Server Compute Output": _server("compute_output_us"),
    "Client Recv": lambda level: 0,
    **{f"{name} latency": _latency(name) for name in PERCENTILES},
    # Trimton's own, after all that perf_analyzer writes.
    "Avg latency": _latency("mean"),
    "p50 service": _service("p50"),
    "p99 service": _service("p99"),
    "Requests": lambda level: level.requests,
    "Errors": lambda level: sum(level.errors.values()),
    "Late Sends": lambda level: level.late.count if level.late else "",
    "Inferences/Second Low": _bound("low"),
    "Inferences/Second High": _bound("high"),
    "Client CPU us/Request": lambda level: round(level.client_cpu_us_per_request, 1),
    "Stable": lambda level: "yes" if level.stable else "no",
}


def perf_analyzer_csv(levels: Sequence[LevelSummary]) -> str:
    """The text of the file for ``levels``, all closed loops or all with a schedule."""
    closed = {level.arrivals is None for level in levels}
    if len(closed) > 1:
        raise InputError("a file of this form holds either concurrencies or rates, not both.")
    first = _CONCURRENCY if closed == {True} else _REQUEST_RATE
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([first, *_COLUMNS])
    for level in sorted(levels, key=lambda level: level.throughput_rps.value):
        load = level.concurrency if first == _CONCURRENCY else f"{level.rate_rps:g}"
        writer.writerow([load, *(cell(level) for cell in _COLUMNS.values())])
    return text.getvalue()
