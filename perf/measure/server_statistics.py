"""The server's own account of a window, from its statistics before and after.

Source: Triton's statistics extension of KServe v2 (``GET /v2/models/M/stats``); its times are
cumulative nanoseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimton.perf.results import ServerStatistics

# Field of ServerStatistics -> duration in the statistics, as a mean per successful request.
_DURATIONS = {
    "request_us": "success",
    "queue_us": "queue",
    "compute_input_us": "compute_input",
    "compute_infer_us": "compute_infer",
    "compute_output_us": "compute_output",
}


def statistics_between(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> ServerStatistics | None:
    """What the server did between two answers of its statistics, over all versions of the model.

    None where the server gives no statistics, or served nothing in between.
    """
    if before is None or after is None:
        return None

    def count(path: tuple[str, ...]) -> int:
        return _total(after, path) - _total(before, path)

    requests = count(("inference_stats", "success", "count"))
    if requests <= 0:
        return None
    inferences = count(("inference_count",))
    executions = count(("execution_count",))
    means_us = {
        field: count(("inference_stats", name, "ns")) / requests / 1000
        for field, name in _DURATIONS.items()
    }
    return ServerStatistics(
        requests=requests,
        failures=count(("inference_stats", "fail", "count")),
        inferences=inferences,
        executions=executions,
        mean_batch=inferences / executions if executions else 0.0,
        **means_us,
    )


def merge_statistics(parts: list[ServerStatistics]) -> ServerStatistics | None:
    """One account over several windows; means weighted by requests. None for no parts."""
    requests = sum(part.requests for part in parts)
    if requests == 0:
        return None
    inferences = sum(part.inferences for part in parts)
    executions = sum(part.executions for part in parts)
    means_us = {
        field: sum(getattr(part, field) * part.requests for part in parts) / requests
        for field in _DURATIONS
    }
    return ServerStatistics(
        requests=requests,
        failures=sum(part.failures for part in parts),
        inferences=inferences,
        executions=executions,
        mean_batch=inferences / executions if executions else 0.0,
        **means_us,
    )


def _total(answer: Mapping[str, Any], path: tuple[str, ...]) -> int:
    total = 0
    for version in answer.get("model_stats", ()):
        value: Any = version
        for key in path:
            value = value.get(key, {}) if isinstance(value, Mapping) else {}
        # A counter that is still zero may be absent: protobuf's JSON form leaves it out.
        total += int(value) if value != {} else 0
    return total
