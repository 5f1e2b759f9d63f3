"""The measured values, as frozen records that travel through JSON unchanged.

Units stand in the names. An Interval is a two-sided 95 % interval.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Outcome = Literal["better", "worse", "equivalent", "inconclusive"]


class Record(BaseModel):
    """Base of the measured values: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(Record):
    """A point estimate with its 95 % interval; ``low`` and ``high`` are None when unknown."""

    value: float
    low: float | None = None
    high: float | None = None


class ServerStatistics(Record):
    """The server's own account of one window, from its statistics before and after.

    Times are means per request.
    """

    requests: int
    failures: int
    inferences: int
    executions: int
    request_us: float
    queue_us: float
    compute_input_us: float
    compute_infer_us: float
    compute_output_us: float
    mean_batch: float


class LoadWindow(Record):
    """One variant under one load for one window (one round).

    ``latency_histogram`` is an encoded HdrHistogram of microseconds (mergeable);
    ``throughput_rps`` counts inferences (samples) per second over the exact window;
    ``cpu_ms_per_inference`` is the CPU time of the server's process tree;
    ``error_example`` is the text of the first error.
    """

    variant: str
    concurrency: int
    batch: int
    round: int
    duration_s: float
    requests: int
    errors: dict[str, int]
    throughput_rps: float
    latency_histogram: str
    latency_mean_ms: float
    client_cpu_us_per_request: float
    server: ServerStatistics | None = None
    cpu_ms_per_inference: float | None = None
    error_example: str | None = None


class LatencySummary(Record):
    """Latency in milliseconds; a percentile is None where too few requests stand behind it."""

    mean: Interval
    p50: Interval | None
    p90: Interval | None
    p95: Interval | None
    p99: Interval | None


class LevelSummary(Record):
    """One variant at one load over all its rounds.

    Throughput and latency intervals come from a bootstrap over rounds. ``stable`` says that
    the rounds agree within the stability limit.
    """

    variant: str
    concurrency: int
    batch: int
    rounds: int
    requests: int
    errors: dict[str, int]
    throughput_rps: Interval
    latency_ms: LatencySummary
    stable: bool
    client_cpu_us_per_request: float
    server: ServerStatistics | None = None
    cpu_ms_per_inference: float | None = None
    notes: tuple[str, ...] = ()


class MemoryUse(Record):
    """Proportional set size of a fresh server's process tree that serves this variant alone.

    Medians over several fresh servers; ``under_load_readings`` holds the highest reading of each.
    """

    variant: str
    empty_server_pss_bytes: int
    loaded_pss_bytes: int
    under_load_pss_bytes: int
    load_seconds: float
    under_load_readings: tuple[int, ...] = ()


class QualitySummary(Record):
    """How good a variant is on labelled samples, and how close to the baseline.

    ``accuracy`` top-1 in [0, 1] (None without labels); ``accuracy_drop`` baseline minus variant,
    paired; ``agreement`` share of samples with the same top-1 as the baseline; ``sqnr_db``
    signal-to-quantisation-noise ratio of the outputs against the baseline's (None if identical).
    """

    variant: str
    samples: int
    accuracy: Interval | None
    accuracy_drop: Interval | None
    agreement: Interval
    sqnr_db: float | None
    largest_difference: float


class MetricComparison(Record):
    """One metric of a variant against the baseline; ``ratio`` = variant / baseline.

    ``concurrency`` is the load it was taken at, which also ends the name ("@4"); None for
    metrics without a load.
    ``outcome`` uses the metric's direction and the equivalence margin: "better" or "worse" only
    when the whole interval lies beyond 1, "equivalent" when it lies within the margin.
    """

    name: str
    unit: str
    higher_is_better: bool
    baseline: float
    variant: float
    ratio: float
    interval: tuple[float, float] | None
    outcome: Outcome
    concurrency: int | None = None
