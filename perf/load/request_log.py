"""Every request of a load with its times, for those who ask for them.

Sixteen bytes for each request, so only where an export or a trace is wanted.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from trimton.perf.results import LoadWindow


@dataclass(frozen=True)
class LoggedWindow:
    """The successful requests of one window: int64 [requests] each, monotonic nanoseconds.

    ``started_ns`` is the scheduled instant where there is a schedule, else the send.
    """

    window: LoadWindow
    started_ns: npt.NDArray[np.int64]
    finished_ns: npt.NDArray[np.int64]


@dataclass
class RequestLog:
    """Collects requests (as ``on_request``) and cuts them into windows (as ``on_window``)."""

    windows: list[LoggedWindow] = field(default_factory=list)
    _started_ns: array[int] = field(default_factory=lambda: array("q"))
    _finished_ns: array[int] = field(default_factory=lambda: array("q"))

    def on_request(self, started_ns: int, finished_ns: int) -> None:
        """A request was counted."""
        self._started_ns.append(started_ns)
        self._finished_ns.append(finished_ns)

    def on_window(self, window: LoadWindow) -> None:
        """The last requests were those of ``window``; any before them (a search) are dropped."""
        count = window.requests
        self.windows.append(
            LoggedWindow(
                window,
                np.frombuffer(self._started_ns, np.int64)[-count:],
                np.frombuffer(self._finished_ns, np.int64)[-count:],
            )
        )
        self._started_ns, self._finished_ns = array("q"), array("q")

    def keep(self, windows: Collection[LoadWindow]) -> None:
        """Forget all windows but these."""
        kept = {id(window) for window in windows}
        self.windows = [logged for logged in self.windows if id(logged.window) in kept]


def epoch_offset_ns() -> int:
    """What to add to the monotonic clock for nanoseconds since 1970."""
    return time.time_ns() - time.monotonic_ns()
