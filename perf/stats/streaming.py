"""What streaming adds to the summary of a level: how many responses, and when they came."""

from __future__ import annotations

from collections.abc import Sequence

from trimton.perf.measure.histogram import PERCENTILES, LatencyHistogram
from trimton.perf.results import LoadWindow, StreamingSummary


def streaming_summary(windows: Sequence[LoadWindow]) -> StreamingSummary | None:
    """The responses of all ``windows`` together; None without streaming."""
    parts = [window.streamed for window in windows if window.streamed is not None]
    requests = sum(part.requests for part in parts)
    if requests == 0:
        return None
    return StreamingSummary(
        responses_per_request=sum(part.responses for part in parts) / requests,
        first_response_ms=_times([(p.first_histogram, p.first_mean_ms) for p in parts]),
        between_responses_ms=_times([(p.between_histogram, p.between_mean_ms) for p in parts]),
    )


def _times(parts: Sequence[tuple[str, float]]) -> dict[str, float | None]:
    """The mean and the percentiles of encoded histograms with their means."""
    histograms = [LatencyHistogram.decode(text) for text, _ in parts]
    merged = LatencyHistogram.merged(histograms)
    total_ms = sum(
        len(histogram) * mean_ms for histogram, (_, mean_ms) in zip(histograms, parts, strict=True)
    )
    percentiles = {name: merged.percentile_ms(share) for name, share in PERCENTILES.items()}
    return {"mean": total_ms / len(merged) if len(merged) else None, **percentiles}
