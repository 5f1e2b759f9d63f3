"""An arm is what one side of a comparison loads: a variant behind a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from trimton.core.errors import InfrastructureError
from trimton.perf.load.closed_loop import run_closed_loop
from trimton.perf.load.connection import Connector
from trimton.perf.load.http_connection import HttpConnector
from trimton.perf.load.open_loop import CONNECTIONS_MAX, run_open_loop
from trimton.perf.load.patience import Patience
from trimton.perf.load.response_times import ResponseTimes
from trimton.perf.load.schedules import Arrivals, Instants
from trimton.perf.load.span import Enough, Span, never
from trimton.perf.load.tally import OnRequest, Tally
from trimton.perf.measure.server_probes import ServerProbes, WatchedServer
from trimton.perf.results import LoadWindow
from trimton.perf.targets.model_endpoint import ModelEndpoint


@dataclass(frozen=True)
class Load:
    """What one window asks for, after ``warmup_s`` of the same.

    A closed loop of ``concurrency`` requests in flight, or an open loop where ``arrivals`` says
    when requests come (``concurrency`` is then 0). It lasts ``window_s``, or ``request_count``
    requests where that is given. ``seed`` and ``round`` choose the schedule, so that all arms of
    a round get the same. In an open loop the answers that took longer than ``latency_limit_ms`` are
    counted.
    """

    concurrency: int
    round: int
    window_s: float
    warmup_s: float
    arrivals: Arrivals | None = None
    request_count: int | None = None
    seed: int = 0
    latency_limit_ms: float | None = None

    @property
    def schedule_s(self) -> float | None:
        """How long a schedule lasts; None in a closed loop, and for a number of requests."""
        if self.arrivals is None or self.request_count is not None:
            return None
        return self.arrivals.duration_s(self.window_s)

    @property
    def window_ns(self) -> int | None:
        """The same in nanoseconds."""
        return None if self.schedule_s is None else round(self.schedule_s * 1e9)

    @property
    def limit_ns(self) -> float | None:
        """The limit of the latency in nanoseconds."""
        return None if self.latency_limit_ms is None else self.latency_limit_ms * 1e6


class Arm(Protocol):
    """One variant that can be loaded; ``batch`` is the number of samples in each request."""

    @property
    def variant(self) -> str: ...

    @property
    def batch(self) -> int: ...

    def measure(self, load: Load) -> LoadWindow:
        """Warm up, load for one window, and return what was measured.

        Raises InfrastructureError when the target is gone or refuses every request.
        """


@dataclass(frozen=True)
class ServedArm:
    """A model served over KServe v2, over HTTP unless a ``connector`` says otherwise.

    ``requests`` are prepared for the connector's protocol; ``pid`` is the root of a local
    server's process tree (None for a remote server, whose CPU time cannot be read),
    ``metrics_url`` is ``host:port`` of the server's Prometheus metrics, where it is known.
    ``on_request`` is told of every counted success; ``response_times`` belong to a connector that
    streams.
    """

    variant: str
    endpoint: ModelEndpoint
    model: str
    requests: Sequence[bytes]
    batch: int = 1
    pid: int | None = None
    patience: Patience = field(default_factory=Patience)
    connector: Connector | None = None
    connections_max: int = CONNECTIONS_MAX
    on_request: OnRequest | None = None
    metrics_url: str | None = None
    response_times: ResponseTimes | None = None

    def measure(self, load: Load) -> LoadWindow:
        watched = WatchedServer(self.endpoint, self.model, self.batch, self.pid, self.metrics_url)
        with ServerProbes(watched) as probes:
            tally, observed = self.run(load, before_window=probes.before)
            observed |= probes.after(tally)
        if tally.response_times is not None:
            observed["streamed"] = tally.response_times.as_record()
        return window_record(
            tally,
            self,
            load,
            where=f"the server at {self._connector.where}",
            client_cpu_us_per_request=tally.cpu_ns / max(tally.requests, 1) / 1000,
            **observed,
        )

    def run(
        self,
        load: Load,
        *,
        before_window: Callable[[], None] = lambda: None,
        enough: Enough = never,
    ) -> tuple[Tally, dict[str, Any]]:
        """Load without probes: the counts, and the fields of LoadWindow about the schedule.

        ``enough`` may end an open loop early.
        """
        times = self.response_times

        def begin() -> None:
            before_window()
            if times is not None:
                times.reset()

        tally, fields = self._run(load, begin, enough)
        tally.response_times = times
        return tally, fields

    def _run(
        self, load: Load, before_window: Callable[[], None], enough: Enough
    ) -> tuple[Tally, dict[str, Any]]:
        if load.arrivals is None:
            return (
                run_closed_loop(
                    self._connector,
                    self.requests,
                    load.concurrency,
                    window_s=load.window_s,
                    warmup_s=load.warmup_s,
                    request_count=load.request_count,
                    patience=self.patience,
                    before_window=before_window,
                    on_request=self.on_request,
                ),
                {},
            )
        instants_ns, warmup_ns = schedules(load)
        span = run_open_loop(
            self._connector,
            self.requests,
            instants_ns,
            warmup_ns=warmup_ns,
            connections_max=self.connections_max,
            patience=self.patience,
            before_window=before_window,
            enough=enough,
            on_request=self.on_request,
            window_ns=load.window_ns,
            limit_ns=load.limit_ns,
        )
        return span, schedule_fields(span, load.arrivals)

    @property
    def _connector(self) -> Connector:
        return self.connector or HttpConnector(self.endpoint.address)


def schedules(load: Load) -> tuple[Instants, Instants]:
    """The instants of the window and of the warm-up of an open loop."""
    assert load.arrivals is not None, "a closed loop has no schedule"
    window_seed, warmup_seed = np.random.SeedSequence([load.seed, load.round]).generate_state(2)
    if load.request_count is not None:
        instants_ns = load.arrivals.first_ns(load.request_count, int(window_seed))
    else:
        window_s = load.arrivals.duration_s(load.window_s)
        instants_ns = load.arrivals.instants_ns(window_s, int(window_seed))
    if load.warmup_s == 0:
        return instants_ns, instants_ns[:0]
    return instants_ns, load.arrivals.instants_ns(load.warmup_s, int(warmup_seed))


def schedule_fields(span: Span, arrivals: Arrivals) -> dict[str, Any]:
    """The fields of LoadWindow that only a schedule gives."""
    return {
        "arrivals": arrivals.name,
        "rate_rps": arrivals.rate_rps,
        "service_histogram": span.service.histogram.encode(),
        "service_mean_ms": span.service.mean_ms,
        "lateness_histogram": span.lateness.histogram.encode(),
        "late_sends": span.late_sends,
        "client_late_sends": span.client_late,
        "connections": span.connections,
    }


def window_record(
    window: Tally,
    arm: Arm,
    load: Load,
    *,
    where: str,
    client_cpu_us_per_request: float,
    **observed: Any,
) -> LoadWindow:
    """The record of a closed ``window``; ``observed`` are fields that probes found.

    The throughput of a schedule is that of its own length: what a server answers afterwards, while
    it catches up, is late and not faster. (A window that is shorter than one latency, in which
    nothing was answered, counts to its last answer.)

    Raises InfrastructureError if no request succeeded: there is nothing to measure then.
    """
    if window.requests == 0:
        failed = sum(window.errors.values())
        reason = f"the first of {failed} errors is {window.error_example}" if failed else "no error"
        raise InfrastructureError(
            f"{where} answered no request for {arm.variant!r} "
            f"({reason.rstrip('.')}); look into the server's log."
        )
    duration_s = window.duration_s
    throughput_rps = window.requests / duration_s
    if load.schedule_s is not None and isinstance(window, Span):
        duration_s = max(duration_s, load.schedule_s)
        if window.in_window:
            throughput_rps = window.in_window / load.schedule_s
    return LoadWindow(
        variant=arm.variant,
        concurrency=load.concurrency,
        batch=arm.batch,
        round=load.round,
        duration_s=duration_s,
        requests=window.requests,
        errors=dict(window.errors),
        throughput_rps=throughput_rps * arm.batch,
        latency_histogram=window.histogram.encode(),
        latency_mean_ms=window.mean_latency_ms,
        client_cpu_us_per_request=client_cpu_us_per_request,
        error_example=window.error_example,
        **observed,
    )
