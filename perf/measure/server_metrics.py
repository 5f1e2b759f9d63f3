"""The server's metrics of several windows as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from trimton.perf.results import GaugeUse, ServerMetrics


def merge_metrics(parts: Sequence[ServerMetrics]) -> ServerMetrics | None:
    """Counters added up, gauges over all their readings. None for no parts."""
    if not parts:
        return None
    counters: Counter[str] = Counter()
    gauges: dict[str, list[GaugeUse]] = {}
    for part in parts:
        counters.update(part.counters)
        for name, use in part.gauges.items():
            gauges.setdefault(name, []).append(use)
    return ServerMetrics(
        counters=dict(counters), gauges={name: _merged(uses) for name, uses in gauges.items()}
    )


def _merged(uses: Sequence[GaugeUse]) -> GaugeUse:
    samples = sum(use.samples for use in uses)
    return GaugeUse(
        mean=sum(use.mean * use.samples for use in uses) / samples,
        highest=max(use.highest for use in uses),
        samples=samples,
    )
