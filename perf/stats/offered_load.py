"""What a schedule adds to the summary of a level: service times and late sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from trimton.perf.measure.histogram import PERCENTILES, LatencyHistogram
from trimton.perf.results import LatencySummary, LateSends, LoadWindow
from trimton.perf.stats.bootstrap import estimate
from trimton.perf.stats.metrics import METRICS, Rounds

# More late sends than this share are worth a note.
_LATE_SHARE_NOTED = 0.01
# Less than this share of the rate that was asked for is worth a note.
_ACHIEVED_SHARE_NOTED = 0.97


def offered_load(rounds: Rounds, seed: int) -> Mapping[str, Any]:
    """The fields of LevelSummary for windows with a schedule; nothing for a closed loop."""
    windows = rounds.windows
    if windows[0].arrivals is None:
        return {}
    return {
        "arrivals": windows[0].arrivals,
        "rate_rps": windows[0].rate_rps,
        "service_ms": _service(rounds, seed),
        "late": _late(windows),
        "connections": max(w.connections or 0 for w in windows),
    }


def schedule_notes(windows: Sequence[LoadWindow]) -> list[str]:
    """What is wrong with how the schedule was kept, each with its number."""
    late = _late(windows)
    if late is None:
        return []
    notes = []
    by_server = late.count - late.client
    sends = _sends(windows)
    how_late = f"the latest by {late.max_ms:.0f} ms"
    if late.client / sends > _LATE_SHARE_NOTED:
        notes.append(
            f"the client could not keep the schedule: {late.client / sends:.1%} of the sends were "
            f"late because it was busy, {how_late}"
        )
    if by_server / sends > _LATE_SHARE_NOTED:
        notes.append(
            f"{by_server / sends:.1%} of the sends waited for a free connection, {how_late}"
        )
    rate = windows[0].rate_rps
    achieved = median(w.throughput_rps / w.batch for w in windows)
    if rate and achieved < _ACHIEVED_SHARE_NOTED * rate:
        notes.append(f"answered {achieved:.1f} of {rate:g} requests/s that were asked for")
    return notes


def _service(rounds: Rounds, seed: int) -> LatencySummary:
    """The service times, summarised as latencies are."""
    served = Rounds(
        tuple(
            w.model_copy(
                update={
                    "latency_histogram": w.service_histogram,
                    "latency_mean_ms": w.service_mean_ms,
                }
            )
            for w in rounds.windows
        )
    )
    found: dict[str, Any] = {}
    for name in ("mean", *PERCENTILES):
        statistic = METRICS[f"latency_{name}_ms"].statistic(served)
        found[name] = None if statistic is None else estimate(statistic, len(served.windows), seed)
    return LatencySummary(**found)


def _late(windows: Sequence[LoadWindow]) -> LateSends | None:
    texts = [w.lateness_histogram for w in windows if w.lateness_histogram is not None]
    if not texts:
        return None
    lateness = LatencyHistogram.merged(LatencyHistogram.decode(text) for text in texts)
    values, _ = lateness.buckets()
    count = sum(w.late_sends or 0 for w in windows)
    return LateSends(
        count=count,
        client=min(count, sum(w.client_late_sends or 0 for w in windows)),
        share=count / max(len(lateness), 1),
        p50_ms=lateness.percentile_ms(0.50),
        p99_ms=lateness.percentile_ms(0.99),
        max_ms=float(values[-1]) if len(values) else 0.0,
    )


def _sends(windows: Sequence[LoadWindow]) -> int:
    return max(1, sum(w.requests + sum(w.errors.values()) for w in windows))
