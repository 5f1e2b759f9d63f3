"""All sources of figures about a server, in one table. A new source is one row here.

What the probes of a window found is merged into fields of LoadWindow; each source that is not
there is named under ``missing``, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from trimton.perf.load.tally import Tally
from trimton.perf.measure.metrics_probe import MetricsPage, MetricsProbe
from trimton.perf.measure.powercap import PowercapProbe
from trimton.perf.measure.probes import CpuProbe, Probe, StatisticsProbe
from trimton.perf.measure.processes import tree_memory
from trimton.perf.targets.model_endpoint import ModelEndpoint


@dataclass(frozen=True)
class WatchedServer:
    """A server under load: ``pid`` is the root of its process tree where it is local.

    ``metrics_url`` is ``host:port`` of its Prometheus metrics, None where it is not known;
    ``batch`` the number of samples in each request.
    """

    endpoint: ModelEndpoint
    model: str
    batch: int = 1
    pid: int | None = None
    metrics_url: str | None = None


class MemoryProbe(Probe):
    """Memory of the server's process tree, as it stands after the window.

    Read then and not during it, because reading stops each process for milliseconds; a server
    keeps what it has allocated for its largest request.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def after(self, window: Tally) -> Mapping[str, Any]:
        memory = tree_memory(self._pid)
        if memory.kind != "pss":
            return {"missing": {"memory": "the kernel does not tell the server's mappings"}}
        return {"pss_bytes": memory.bytes}


class Absent(Probe):
    """A source that this server cannot have."""

    def __init__(self, source: str, reason: str) -> None:
        self._missing = {source: reason}

    def after(self, window: Tally) -> Mapping[str, Any]:
        return {"missing": self._missing}


def _statistics(server: WatchedServer) -> Probe:
    return StatisticsProbe(server.endpoint, server.model)


def _cpu(server: WatchedServer) -> Probe:
    if server.pid is None:
        return Absent("cpu", "the server's processes are not on this machine or not known")
    return CpuProbe(server.pid, server.batch)


def _memory(server: WatchedServer) -> Probe:
    if server.pid is None:
        return Absent("memory", "the server's processes are not on this machine or not known")
    return MemoryProbe(server.pid)


def _energy(server: WatchedServer) -> Probe:
    if server.pid is None:
        return Absent("energy", "the server is not on this machine or not known to be")
    return PowercapProbe()


def _metrics(server: WatchedServer) -> Probe:
    if server.metrics_url is None:
        return Absent("metrics", "the address of the server's metrics is not given (--metrics-url)")
    return MetricsProbe(MetricsPage(server.metrics_url), server.model)


SOURCES: Sequence[Callable[[WatchedServer], Probe]] = (
    _metrics,
    _memory,
    _statistics,
    _energy,
    _cpu,
)


class ServerProbes:
    """Every source of SOURCES around one window; a context that ends what still watches."""

    def __init__(self, server: WatchedServer) -> None:
        self._server = server
        self._probes = [source(server) for source in SOURCES]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for probe in self._probes:
            probe.close()

    def before(self) -> None:
        """Read all sources; the last ones are the nearest to the window."""
        for probe in self._probes:
            probe.before()

    def after(self, window: Tally) -> dict[str, Any]:
        """Fields of LoadWindow."""
        found: dict[str, Any] = {}
        for probe in reversed(self._probes):
            for field, value in probe.after(window).items():
                together = isinstance(value, Mapping) and field in found
                found[field] = {**found[field], **value} if together else value
        inferences = window.all_answers * self._server.batch
        if (joules := found.get("energy_j")) and inferences:
            found["energy_mj_per_inference"] = 1000 * sum(joules.values()) / inferences
        return found
