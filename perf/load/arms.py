"""An arm is what one side of a comparison loads: a variant behind a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from trimton.core.errors import InfrastructureError
from trimton.perf.load.closed_loop import Patience, run_closed_loop
from trimton.perf.load.tally import Tally
from trimton.perf.measure.probes import CpuProbe, Probe, StatisticsProbe
from trimton.perf.results import LoadWindow
from trimton.perf.targets.endpoint import Endpoint


@dataclass(frozen=True)
class Load:
    """What one window asks for: ``concurrency`` requests in flight for ``window_s``."""

    concurrency: int
    round: int
    window_s: float
    warmup_s: float


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
class HttpArm:
    """A model served over KServe v2 HTTP.

    ``requests`` are prepared by trimton.perf.load.requests; ``pid`` is the root of a local
    server's process tree (None for a remote server, whose CPU time cannot be read).
    """

    variant: str
    endpoint: Endpoint
    model: str
    requests: Sequence[bytes]
    batch: int = 1
    pid: int | None = None
    patience: Patience = field(default_factory=Patience)

    def measure(self, load: Load) -> LoadWindow:
        probes: list[Probe] = [StatisticsProbe(self.endpoint, self.model)]
        if self.pid is not None:
            probes.append(CpuProbe(self.pid, self.batch))

        def read_probes() -> None:
            for probe in probes:
                probe.before()

        window = run_closed_loop(
            self.endpoint.address,
            self.requests,
            load.concurrency,
            window_s=load.window_s,
            warmup_s=load.warmup_s,
            patience=self.patience,
            before_window=read_probes,
        )
        observed: dict[str, Any] = {}
        for probe in probes:
            observed |= probe.after(window)
        return window_record(
            window,
            self,
            load,
            where=f"the server at {self.endpoint.address}",
            client_cpu_us_per_request=window.cpu_ns / max(window.requests, 1) / 1000,
            **observed,
        )


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

    Raises InfrastructureError if no request succeeded: there is nothing to measure then.
    """
    if window.requests == 0:
        failed = sum(window.errors.values())
        reason = f"the first of {failed} errors is {window.error_example}" if failed else "no error"
        raise InfrastructureError(
            f"{where} answered no request for {arm.variant!r} within {load.window_s:g} s "
            f"({reason.rstrip('.')}); look into the server's log."
        )
    return LoadWindow(
        variant=arm.variant,
        concurrency=load.concurrency,
        batch=arm.batch,
        round=load.round,
        duration_s=window.duration_s,
        requests=window.requests,
        errors=dict(window.errors),
        throughput_rps=window.requests * arm.batch / window.duration_s,
        latency_histogram=window.histogram.encode(),
        latency_mean_ms=window.mean_latency_ms,
        client_cpu_us_per_request=client_cpu_us_per_request,
        error_example=window.error_example,
        **observed,
    )
