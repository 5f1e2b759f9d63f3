"""Open loop: requests leave when a schedule says so, whether or not earlier ones are answered.

Latency runs from the scheduled instant, so a server that stalls is charged for everyone who
would have waited (no coordinated omission). A request that finds no free connection waits for
one, and that wait is latency too.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic_ns

from trimton.perf.load.connection import Connection, Connector
from trimton.perf.load.loop import REFUSED, TIMED_OUT, LoadLoop, run_load
from trimton.perf.load.patience import Patience
from trimton.perf.load.schedules import Instants
from trimton.perf.load.span import Enough, Span, never
from trimton.perf.load.tally import OnRequest
from trimton.perf.load.timer import Timer

# Triton's HTTP threads (libevhtp) hand answers over through a socket pair that holds some 278 of
# them; what does not fit is lost, and its client waits until it gives up. So an overload must not
# put more than that under way.
CONNECTIONS_MAX = 256
# The start of a schedule lies this far ahead, so that its first request is not late.
_LEAD_NS = 2_000_000


class OpenLoop(LoadLoop):
    """Sends by schedule over as many connections as are needed, ``connections_max`` at most."""

    def __init__(
        self,
        connector: Connector,
        requests: Sequence[bytes],
        *,
        connections_max: int = CONNECTIONS_MAX,
        patience: Patience | None = None,
    ) -> None:
        super().__init__(connector, requests, patience)
        self._connections_max = connections_max
        self._idle: list[Connection] = []
        self._scheduled_ns: dict[Connection, int] = {}
        self._waiting: deque[int] = deque()
        self._opening = 0
        self._instants_ns: array[int] = array("q")
        self._position = 0
        self._span = Span(0)
        self._enough: Enough = never
        self._timer: Timer

    async def run(
        self,
        instants_ns: Instants,
        *,
        start_ns: int | None = None,
        enough: Enough = never,
        on_request: OnRequest | None = None,
        window_ns: int | None = None,
        limit_ns: float | None = None,
    ) -> Span:
        """Send at ``instants_ns`` after ``start_ns`` and return the span when all have ended.

        ``enough`` is asked some twenty times a second and ends the schedule early; what was sent
        is still waited for. ``window_ns`` and ``limit_ns`` are those of Span. Raises
        InfrastructureError when the server is gone.
        """
        start_ns = monotonic_ns() + _LEAD_NS if start_ns is None else start_ns
        self._instants_ns = array("q", (instants_ns + start_ns).tobytes())
        self._position = 0
        self._span = Span(
            len(self._instants_ns), on_request=on_request, window_ns=window_ns, limit_ns=limit_ns
        )
        self._span.open(start_ns)
        self._enough = enough
        self._idle = [c for c in self._connections if c.reusable]
        self._connections = set(self._idle)
        self._timer = Timer(asyncio.get_running_loop(), self._on_time)
        try:
            self._timer.set(self._instants_ns[0])
            await self._until_finished()
        finally:
            self._timer.close()
        self._span.connections = len(self._connections)
        return self._span

    def _on_time(self) -> None:
        now_ns = monotonic_ns()
        instants_ns = self._instants_ns
        while self._position < len(instants_ns):
            due_ns = instants_ns[self._position]
            if due_ns > now_ns:
                self._timer.set(due_ns)
                return
            self._position += 1
            self._span.noticed(now_ns - due_ns)
            self._waiting.append(due_ns)
            self._send_or_connect()
            now_ns = monotonic_ns()

    def _send_or_connect(self) -> None:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                self._send(connection)
                return
            self._connections.discard(connection)
        open_or_opening = len(self._connections) + self._opening
        if self._opening < len(self._waiting) and open_or_opening < self._connections_max:
            self._connect(wait=False)

    def _send(self, connection: Connection) -> None:
        due_ns = self._waiting.popleft()
        self._scheduled_ns[connection] = due_ns
        connection.send(next(self._requests))
        self._span.sent(connection.sent_ns - due_ns)

    def _on_answer(self, connection: Connection, finished_ns: int) -> None:
        self._answers += 1
        due_ns = self._scheduled_ns.pop(connection)
        self._span.answered(due_ns, finished_ns, connection.sent_ns)
        self._next(connection)

    def _on_failure(self, connection: Connection, kind: str, text: str) -> None:
        del self._scheduled_ns[connection]
        self._span.failed(monotonic_ns(), kind, text)
        self._next(connection)

    def _next(self, connection: Connection) -> None:
        if connection.reusable:
            self._use(connection)
            return
        fruitless = self._drop(connection)
        if self._opening < len(self._waiting):
            self._connect(wait=fruitless)
        self._end_if_done()

    def _use(self, connection: Connection) -> None:
        if self._waiting:
            self._send(connection)
        else:
            self._idle.append(connection)
            self._end_if_done()

    def _connect(self, *, wait: bool) -> None:
        self._opening += 1
        self._spawn(self._open_one(wait=wait))

    async def _open_one(self, *, wait: bool) -> None:
        try:
            await self._connect_again(wait=wait)
        finally:
            self._opening -= 1

    def _wants_connection(self) -> bool:
        return bool(self._waiting)

    def _on_refusal(self, reason: str) -> None:
        """One request could not be sent; the others go on waiting."""
        if self._waiting:
            self._waiting.popleft()
            self._span.failed(monotonic_ns(), REFUSED, reason)
            self._end_if_done()

    def _on_no_connection(self) -> None:
        """The request that needed it went out on another."""

    def _on_tick(self, now_ns: int) -> None:
        oldest_ns = now_ns - int(self._patience.request_timeout_s * 1e9)
        while self._waiting and self._waiting[0] < oldest_ns:
            self._waiting.popleft()
            self._span.failed(now_ns, TIMED_OUT, "no free connection within the time limit")
        if self._enough(self._span.progress):
            self._span.cut(len(self._instants_ns) - self._position + len(self._waiting))
            self._position = len(self._instants_ns)
            self._waiting.clear()
        self._end_if_done()

    def _end_if_done(self) -> None:
        if (
            self._position == len(self._instants_ns)
            and not self._waiting
            and not self._scheduled_ns
        ):
            self._span.close()
            self._end()


def run_open_loop(
    connector: Connector,
    requests: Sequence[bytes],
    instants_ns: Instants,
    *,
    warmup_ns: Instants | None = None,
    connections_max: int = CONNECTIONS_MAX,
    patience: Patience | None = None,
    before_window: Callable[[], None] = lambda: None,
    enough: Enough = never,
    on_request: OnRequest | None = None,
    window_ns: int | None = None,
    limit_ns: float | None = None,
) -> Span:
    """Send at ``instants_ns`` (from the start) and return the span after the last answer.

    A warm-up with the schedule ``warmup_ns`` comes first, on the same connections;
    ``before_window`` runs between the two, while no request is in flight. ``enough`` may end the
    schedule early; ``on_request`` is told of every success with its scheduled instant;
    ``window_ns`` and ``limit_ns`` are those of Span. Raises InfrastructureError when the server
    cannot be reached or goes away.
    """

    async def load() -> Span:
        open_loop = OpenLoop(
            connector, requests, connections_max=connections_max, patience=patience
        )
        try:
            await open_loop.connect(1)
            if warmup_ns is not None and len(warmup_ns):
                await open_loop.run(warmup_ns)
            before_window()
            return await open_loop.run(
                instants_ns,
                enough=enough,
                on_request=on_request,
                window_ns=window_ns,
                limit_ns=limit_ns,
            )
        finally:
            await open_loop.close()

    return run_load(load)
