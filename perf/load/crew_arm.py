"""An arm whose load is carried by as many workers as it takes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Self

from trimton.perf.load.arms import Load, ServedArm, schedule_fields
from trimton.perf.load.shares import Crew, LoadSource, merge_tallies
from trimton.perf.load.span import Enough, Span, never
from trimton.perf.load.tally import Tally
from trimton.perf.load.workers import WorkerProcesses
from trimton.perf.results import LoadWindow

# Above this share of a core a worker may be what limits the load; with more workers each is to
# use at most the other.
CORE_LIMIT = 0.8
CORE_GOAL = 0.5


def cores_used(window: LoadWindow) -> float:
    """The cores that the load generator used on average."""
    return window.client_cpu_us_per_request * window.requests / 1e6 / window.duration_s


def workers_wanted(window: LoadWindow, cores: int) -> int:
    """How many workers should carry the load of ``window``.

    As many as did, unless they used more than CORE_LIMIT of a core each: then so many that each
    would use CORE_GOAL, within ``cores``, and within the requests in flight of a closed loop.
    """
    used = cores_used(window)
    if used / window.workers <= CORE_LIMIT:
        return window.workers
    most = min(cores, window.concurrency) if window.arrivals is None else cores
    return max(window.workers, min(ceil(used / CORE_GOAL), most))


class Crews:
    """The workers of a measurement, shared by its arms; ended with the ``with`` block.

    ``workers`` is their number. None begins with this process alone and calls others where it
    was the limit itself (see workers_wanted). ``make`` makes them: processes of this machine
    unless told otherwise.
    """

    def __init__(
        self, workers: int | None = None, make: Callable[[int], Crew] = WorkerProcesses
    ) -> None:
        self._is_fixed = workers is not None
        self._workers = workers or 1
        self._make = make
        self._crew: Crew | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def size_for(self, load: Load) -> int:
        """How many workers carry ``load``: each needs a request in flight, or one to send."""
        most = load.concurrency if load.arrivals is None else self._workers
        if load.request_count is not None:
            most = min(most, load.request_count)
        return min(self._workers, most)

    def learn(self, window: LoadWindow) -> bool:
        """Whether ``window`` should be measured again, with more workers than it had."""
        if self._is_fixed:
            return False
        wanted = workers_wanted(window, len(os.sched_getaffinity(0)))
        self._workers = max(self._workers, wanted)
        return wanted > window.workers

    def crew(self, size: int) -> Crew:
        """A crew of ``size``; one of another size is dismissed."""
        if self._crew is not None and self._crew.size != size:
            self.close()
        if self._crew is None:
            self._crew = self._make(size)
        return self._crew

    def close(self) -> None:
        """End all workers."""
        if self._crew is not None:
            self._crew.close()
            self._crew = None


@dataclass(frozen=True)
class CrewArm(ServedArm):
    """A served model loaded by workers; ``source`` makes the arm's load anew in each of them.

    One worker is this process itself; ``on_request`` is told of its requests only.
    """

    source: LoadSource = field(kw_only=True)
    crews: Crews = field(kw_only=True)

    def measure(self, load: Load) -> LoadWindow:
        """See trimton.perf.load.arms.Arm."""
        window = super().measure(load)
        if self.crews.learn(window):
            return super().measure(load)
        return window

    def run(
        self,
        load: Load,
        *,
        before_window: Callable[[], None] = lambda: None,
        enough: Enough = never,
    ) -> tuple[Tally, dict[str, Any]]:
        """See ServedArm.run."""
        workers = self.crews.size_for(load)
        if workers == 1:
            return super().run(load, before_window=before_window, enough=enough)
        tally = merge_tallies(
            self.crews.crew(workers).run(
                self.source,
                load,
                before_window=before_window,
                is_alive=self.patience.is_alive,
                enough=enough,
            )
        )
        fields: dict[str, Any] = {"workers": workers}
        if load.arrivals is not None and isinstance(tally, Span):
            fields |= schedule_fields(tally, load.arrivals)
        return tally, fields
