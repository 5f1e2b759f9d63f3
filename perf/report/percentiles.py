"""Percentile curves of the recorded latencies, drawn only as far as the requests carry them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from trimton.perf.measure.histogram import EARLY_STOPPING_CONFIDENCE, LatencyHistogram
from trimton.perf.results import LoadWindow

_POINTS = 160
_LOWEST_SHARE = 0.001


@dataclass(frozen=True)
class PercentileCurve:
    """Latency by percentile over all rounds of one variant at one load.

    ``points`` are (share of requests in (0, 1), latency in ms), ``requests`` their number.
    """

    points: tuple[tuple[float, float], ...]
    requests: int


def percentile_curve(windows: Iterable[LoadWindow]) -> PercentileCurve | None:
    """The merged curve of ``windows``, evenly spaced in log(1 / (1 - share)).

    It ends at the highest percentile that the early-stopping rule of
    trimton.perf.measure.histogram allows; None where that leaves nothing to draw.
    """
    merged = LatencyHistogram.merged(LatencyHistogram.decode(w.latency_histogram) for w in windows)
    if not len(merged):
        return None
    highest = (1 - EARLY_STOPPING_CONFIDENCE) ** (1 / len(merged))
    start, end = math.log10(1 - _LOWEST_SHARE), math.log10(1 - highest)
    shares = [1 - 10 ** (start + (end - start) * i / _POINTS) for i in range(_POINTS + 1)]
    points = tuple(
        (share, latency) for share in shares if (latency := merged.percentile_ms(share)) is not None
    )
    return PercentileCurve(points, len(merged)) if len(points) > 1 else None
