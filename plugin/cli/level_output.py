"""Measured levels and comparisons, for people and for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from trimton.perf.measure.histogram import PERCENTILES
from trimton.perf.results import (
    Interval,
    LatencySummary,
    LevelSummary,
    MetricComparison,
    QualitySummary,
)
from trimton.perf.targets.endpoint import ServerMetadata

_STYLES = {"better": "green", "worse": "red", "equivalent": "", "inconclusive": "yellow"}
_LATENCIES = ("mean", *PERCENTILES)
_LEVEL_COLUMNS = ("infer/s", "±", *PERCENTILES, "queue", "infer", "errors", "stable")
_SCHEDULE_COLUMNS = ("service p99", "late", "conns")
_STREAMING_COLUMNS = ("first p50", "first p99", "responses")


def server_json(server: ServerMetadata | None) -> dict[str, str] | None:
    """Name and version of a server; None for ONNX Runtime in this process."""
    return None if server is None else {"name": server.name, "version": server.version}


def level_json(level: LevelSummary) -> dict[str, Any]:
    """The machine form of a level: plain numbers, with their intervals beside them."""
    latencies = _latencies(level.latency_ms)
    return {
        **_load_json(level),
        "batch": level.batch,
        "throughput_rps": level.throughput_rps.value,
        "throughput_interval": _bounds(level.throughput_rps),
        "latency_ms": {name: value and value.value for name, value in latencies.items()},
        "latency_interval_ms": {name: _bounds(value) for name, value in latencies.items()},
        "errors": sum(level.errors.values()),
        "errors_by_kind": level.errors,
        "requests": level.requests,
        "rounds": level.rounds,
        "stable": level.stable,
        "client_cpu_us_per_request": level.client_cpu_us_per_request,
        "cpu_ms_per_inference": level.cpu_ms_per_inference,
        "energy_mj_per_inference": level.energy_mj_per_inference,
        "server_pss_bytes": level.pss_bytes,
        "server_metrics": level.metrics.model_dump() if level.metrics else None,
        "missing": level.missing,
        "streaming": level.streaming.model_dump() if level.streaming else None,
        "server": level.server.model_dump() if level.server else None,
        "notes": list(level.notes),
    }


def _load_json(level: LevelSummary) -> dict[str, Any]:
    """A concurrency; or a rate, with what only a schedule has."""
    if level.arrivals is None:
        return {"concurrency": level.concurrency}
    service = _latencies(level.service_ms) if level.service_ms else {}
    return {
        "rate_rps": level.rate_rps,
        "arrivals": level.arrivals,
        "service_ms": {name: value and value.value for name, value in service.items()},
        "late": level.late.model_dump() if level.late else None,
        "connections": level.connections,
    }


def _latencies(summary: LatencySummary) -> dict[str, Interval | None]:
    return {name: getattr(summary, name) for name in _LATENCIES}


def level_table(levels: Sequence[LevelSummary]) -> Table:
    """One row for each level; latencies in milliseconds, queue and infer as the server counts."""
    scheduled = any(level.arrivals for level in levels)
    table = Table(box=None, pad_edge=False)
    table.add_column("rate/s" if scheduled else "conc", justify="right")
    streaming = any(level.streaming for level in levels)
    for heading in (
        *_LEVEL_COLUMNS,
        *(_SCHEDULE_COLUMNS if scheduled else ()),
        *(_STREAMING_COLUMNS if streaming else ()),
    ):
        table.add_column(heading, justify="right")
    for level in levels:
        server = level.server
        table.add_row(
            f"{level.rate_rps:g}" if level.arrivals else str(level.concurrency),
            f"{level.throughput_rps.value:.1f}",
            _half_width(level.throughput_rps),
            *(_milliseconds(getattr(level.latency_ms, name)) for name in PERCENTILES),
            f"{server.queue_us / 1000:.2f}" if server else "-",
            f"{server.compute_infer_us / 1000:.2f}" if server else "-",
            str(sum(level.errors.values())),
            "yes" if level.stable else "no",
            *(_schedule_cells(level) if scheduled else ()),
            *(_streaming_cells(level) if streaming else ()),
        )
    return table


def _schedule_cells(level: LevelSummary) -> tuple[str, str, str]:
    p99 = level.service_ms.p99 if level.service_ms else None
    late = f"{level.late.share:.1%}" if level.late else "-"
    return _milliseconds(p99), late, str(level.connections or "-")


def _streaming_cells(level: LevelSummary) -> tuple[str, str, str]:
    if level.streaming is None:
        return "-", "-", "-"
    first = level.streaming.first_response_ms
    p50, p99 = ("-" if first[name] is None else f"{first[name]:.2f}" for name in ("p50", "p99"))
    return p50, p99, f"{level.streaming.responses_per_request:.3g}"


def comparison_table(comparisons: Sequence[MetricComparison]) -> Table:
    """One row for each metric of one variant; the unit ends the metric's name.

    "detects" is the smallest difference that the rounds would have found, four times of five.
    """
    table = Table("metric", box=None, pad_edge=False)
    for heading in ("baseline", "variant", "ratio", "interval", "detects"):
        table.add_column(heading, justify="right")
    table.add_column("outcome")
    for metric in comparisons:
        interval = "-" if metric.interval is None else "{:.3f} - {:.3f}".format(*metric.interval)
        style = _STYLES[metric.outcome]
        table.add_row(
            metric.name,
            f"{metric.baseline:.4g}",
            f"{metric.variant:.4g}",
            f"{metric.ratio:.3f}",
            interval,
            "-" if metric.detectable_pct is None else f"{metric.detectable_pct:.1f} %",
            f"[{style}]{metric.outcome}[/]" if style else metric.outcome,
        )
    return table


def quality_table(summaries: Sequence[QualitySummary]) -> Table:
    """One row for each variant: how good, and how close to the baseline."""
    table = Table("variant", box=None, pad_edge=False)
    for heading in ("samples", "accuracy", "drop", "agreement", "SQNR dB", "largest diff"):
        table.add_column(heading, justify="right")
    for summary in summaries:
        table.add_row(
            summary.variant,
            str(summary.samples),
            _share(summary.accuracy),
            _share(summary.accuracy_drop),
            _share(summary.agreement),
            "identical" if summary.sqnr_db is None else f"{summary.sqnr_db:.1f}",
            f"{summary.largest_difference:.3g}",
        )
    return table


def _bounds(interval: Interval | None) -> list[float] | None:
    if interval is None or interval.low is None or interval.high is None:
        return None
    return [interval.low, interval.high]


def _half_width(interval: Interval) -> str:
    bounds = _bounds(interval)
    return "-" if bounds is None else f"{(bounds[1] - bounds[0]) / 2 / interval.value:.1%}"


def _milliseconds(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.value:.2f}"


def _share(interval: Interval | None) -> str:
    bounds = _bounds(interval)
    if interval is None or bounds is None:
        return "-"
    return f"{interval.value:.2%} ±{(bounds[1] - bounds[0]) / 2:.2%}"
