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


class GaugeUse(Record):
    """A gauge over one or more windows, from readings at fixed intervals."""

    mean: float
    highest: float
    samples: int


class ServerMetrics(Record):
    """The server's Prometheus metrics over a window.

    ``counters`` of the model by their growth, over all its versions; ``gauges`` of the model and
    of the machine. Keys are names, with the labels that tell apart (``reason``, ``gpu_uuid``).
    """

    counters: dict[str, float]
    gauges: dict[str, GaugeUse]


class StreamedResponses(Record):
    """The responses of a window's streaming requests; histograms as in LoadWindow.

    ``first`` counts from the send to the first response, ``between`` from one to the next.
    """

    requests: int
    responses: int
    first_histogram: str
    first_mean_ms: float
    between_histogram: str
    between_mean_ms: float


class LoadWindow(Record):
    """One variant under one load for one window (one round).

    ``latency_histogram`` is an encoded HdrHistogram of microseconds (mergeable);
    ``throughput_rps`` counts inferences (samples) per second over the exact window;
    ``cpu_ms_per_inference`` is the CPU time of the server's process tree;
    ``error_example`` is the text of the first error. ``pss_bytes`` is the memory of that tree
    after the window; ``energy_j`` what each counter of energy measured, of the whole machine;
    ``missing`` names each source of figures that was not there, with the reason. ``workers`` is
    how many processes the load generator used.

    With a schedule (``arrivals``: its kind; ``rate_rps``: what it asks for) ``concurrency`` is 0
    and latency runs from the scheduled instant; ``service_*`` is the time from the actual send.
    Late sends left more than a millisecond after their instant; of ``late_sends``,
    ``client_late_sends`` because the client itself was late, the rest for want of a free
    connection. ``connections`` is how many it took.
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
    arrivals: str | None = None
    rate_rps: float | None = None
    service_histogram: str | None = None
    service_mean_ms: float | None = None
    lateness_histogram: str | None = None
    late_sends: int | None = None
    client_late_sends: int | None = None
    connections: int | None = None
    pss_bytes: int | None = None
    energy_j: dict[str, float] | None = None
    energy_mj_per_inference: float | None = None
    metrics: ServerMetrics | None = None
    missing: dict[str, str] = {}
    workers: int = 1
    streamed: StreamedResponses | None = None


class LatencySummary(Record):
    """Latency in milliseconds; a percentile is None where too few requests stand behind it."""

    mean: Interval
    p50: Interval | None
    p90: Interval | None
    p95: Interval | None
    p99: Interval | None


class LateSends(Record):
    """The sends that left more than a millisecond after their scheduled instant.

    ``share`` of all sends in [0, 1]; ``client`` of them because the client itself was late. The
    lateness in milliseconds is that of all sends; p99 is None with too few of them.
    """

    count: int
    client: int
    share: float
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float


class StreamingSummary(Record):
    """How streaming requests were answered; times in milliseconds over all rounds, by statistic.

    A percentile is None where too few responses stand behind it.
    """

    responses_per_request: float
    first_response_ms: dict[str, float | None]
    between_responses_ms: dict[str, float | None]


class LevelSummary(Record):
    """One variant at one load over all its rounds.

    Throughput and latency intervals come from a bootstrap over rounds. ``stable`` says that
    the rounds agree within ``stability_limit``; ``spread`` is by how much throughput and mean
    latency differ between rounds (highest over lowest, less 1) where that is more.
    ``pss_bytes`` is the highest of the rounds',
    ``energy_mj_per_inference`` their median. With a schedule (``arrivals`` and ``rate_rps``,
    as in LoadWindow) the service time stands beside the latency.
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
    pss_bytes: int | None = None
    energy_mj_per_inference: float | None = None
    metrics: ServerMetrics | None = None
    missing: dict[str, str] = {}
    arrivals: str | None = None
    rate_rps: float | None = None
    service_ms: LatencySummary | None = None
    late: LateSends | None = None
    connections: int | None = None
    streaming: StreamingSummary | None = None
    spread: dict[str, float] = {}
    stability_limit: float | None = None


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

    ``concurrency`` is the load it was taken at, which also ends the name ("@4"), or where that has
    a schedule ``rate_rps`` ("@200/s"); both are None for metrics without a load.
    ``outcome`` uses the metric's direction and the equivalence margin: "better" or "worse" only
    when the whole interval lies beyond 1, "equivalent" when it lies within the margin.
    ``detectable_pct`` is the smallest true difference, in per cent, that these rounds would have
    found in 80 of 100 comparisons; None for metrics without rounds or with one.
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
    rate_rps: float | None = None
    detectable_pct: float | None = None
