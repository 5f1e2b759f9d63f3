"""Probes watch the server while a window runs. A new source of figures is one new probe.

A probe reads its source just before the window and just after it, while no request is in
flight, so that reading disturbs no measurement and both readings enclose whole requests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from trimton.perf.load.tally import Tally
from trimton.perf.measure.processes import tree_cpu_ns
from trimton.perf.measure.server_statistics import statistics_between
from trimton.perf.targets.model_endpoint import ModelEndpoint


class Probe(ABC):
    """One source of figures about the server."""

    def before(self) -> None:  # noqa: B027 - some sources have nothing to read before
        """Read the source before the window."""

    @abstractmethod
    def after(self, window: Tally) -> Mapping[str, Any]:
        """Read it again; the result is fields of LoadWindow."""

    def close(self) -> None:  # noqa: B027 - most sources hold nothing
        """Stop what ``before`` started, also where the window failed and ``after`` never came."""


class StatisticsProbe(Probe):
    """The model's statistics as the server counts them."""

    def __init__(self, endpoint: ModelEndpoint, model: str) -> None:
        self._endpoint = endpoint
        self._model = model
        self._before: Mapping[str, Any] | None = None

    def before(self) -> None:
        self._before = self._endpoint.model_statistics(self._model)

    def after(self, window: Tally) -> Mapping[str, Any]:
        after = self._endpoint.model_statistics(self._model)
        return {"server": statistics_between(self._before, after)}


class CpuProbe(Probe):
    """CPU time of the server's process tree for each inference (``batch`` in each request)."""

    def __init__(self, pid: int, batch: int) -> None:
        self._pid = pid
        self._batch = batch
        self._before_ns = 0

    def before(self) -> None:
        self._before_ns = tree_cpu_ns(self._pid)

    def after(self, window: Tally) -> Mapping[str, Any]:
        used_ns = tree_cpu_ns(self._pid) - self._before_ns
        inferences = window.all_answers * self._batch
        return {"cpu_ms_per_inference": used_ns / inferences / 1e6 if inferences else None}
