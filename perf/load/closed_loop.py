"""Closed loop over HTTP: N connections, each sends its next request when the last is answered.

A failed request is counted and its connection replaced; the load goes on. Only a server that
stays away ends it.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic_ns

import uvloop

from trimton.core.errors import InfrastructureError
from trimton.perf.load.http_connection import REFUSED, HttpConnection
from trimton.perf.load.window import Window
from trimton.perf.targets.address import Address

_WATCH_INTERVAL_S = 0.05
_RECONNECT_DELAY_S = 0.02
_RECONNECT_DELAY_MAX_S = 0.5


@dataclass(frozen=True)
class Patience:
    """When to give up.

    ``request_timeout_s`` ends one request (counted as "timed out"); ``server_gone_s`` is how
    long no connection can be made before the server counts as gone; ``is_alive`` says whether
    a local server's process still runs, which ends a load at once when it does not.
    """

    request_timeout_s: float = 60.0
    server_gone_s: float = 5.0
    is_alive: Callable[[], bool] = lambda: True


class ClosedLoop:
    """The connections of one load level, kept open from the warm-up through the window."""

    def __init__(
        self,
        address: Address,
        requests: Sequence[bytes],
        concurrency: int,
        patience: Patience | None = None,
    ) -> None:
        self._address = address
        self._requests: Iterator[bytes] = itertools.cycle(requests)
        self._concurrency = concurrency
        self._patience = patience or Patience()
        self._connections: set[HttpConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._window = Window(0, 0)
        self._finished: asyncio.Future[None]
        self._busy = 0
        self._connected_ns = monotonic_ns()

    async def connect(self) -> None:
        """Open all connections; InfrastructureError if the server does not accept them."""
        try:
            for _ in range(self._concurrency):
                await self._open_connection()
        except OSError as error:
            raise InfrastructureError(
                f"the server at {self._address} does not accept connections "
                f"({error.strerror or error}); check that it runs and the address is right."
            ) from error

    async def run(self, duration_s: float) -> Window:
        """Load for ``duration_s``, wait for the requests in flight, and return the window.

        Raises InfrastructureError when the server is gone.
        """
        loop = asyncio.get_running_loop()
        self._window = Window(int(duration_s * 1e9), settle=self._concurrency)
        self._finished = loop.create_future()
        self._busy = self._concurrency
        idle = [c for c in self._connections if c.reusable]
        self._connections = set(idle)
        self._connected_ns = monotonic_ns()
        for connection in idle:
            connection.send(next(self._requests))
        for _ in range(self._concurrency - len(idle)):
            self._spawn(self._replace_connection(wait=False))
        watch = self._spawn(self._watch())
        try:
            await self._finished
        finally:
            watch.cancel()
        return self._window

    async def close(self) -> None:
        """Drop every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._connections:
            connection.close()

    def _on_answer(self, connection: HttpConnection, finished_ns: int) -> None:
        self._window.answered(connection.sent_ns, finished_ns)
        self._next(connection)

    def _on_failure(self, connection: HttpConnection, kind: str, text: str) -> None:
        self._window.failed(monotonic_ns(), kind, text)
        self._next(connection)

    def _next(self, connection: HttpConnection) -> None:
        if not connection.reusable:
            self._connections.discard(connection)
        if self._window.is_closed:
            self._retire()
        elif connection.reusable:
            connection.send(next(self._requests))
        else:
            # A server that drops connections without an answer would be called in a tight loop.
            self._spawn(self._replace_connection(wait=not connection.has_answered))

    def _retire(self) -> None:
        """One of the N senders has nothing more to do in this window."""
        self._busy -= 1
        if self._busy == 0:
            self._end(None)

    def _end(self, error: BaseException | None) -> None:
        if self._finished.done():
            return
        if error is None:
            self._finished.set_result(None)
        else:
            self._finished.set_exception(error)

    async def _open_connection(self) -> HttpConnection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: HttpConnection(self._on_answer, self._on_failure),
            self._address.host,
            self._address.port,
        )
        self._connections.add(connection)
        self._connected_ns = monotonic_ns()
        return connection

    async def _replace_connection(self, *, wait: bool) -> None:
        delay_s = _RECONNECT_DELAY_S
        if wait:
            await asyncio.sleep(delay_s)
        while not self._window.is_closed:
            try:
                connection = await self._open_connection()
            except OSError as error:
                self._window.failed(monotonic_ns(), REFUSED, error.strerror or str(error))
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _RECONNECT_DELAY_MAX_S)
            else:
                self._next(connection)
                return
        self._retire()

    async def _watch(self) -> None:
        patience = self._patience
        while True:
            await asyncio.sleep(_WATCH_INTERVAL_S)
            now_ns = monotonic_ns()
            away_ns = 0 if self._connections else now_ns - self._connected_ns
            if away_ns > patience.server_gone_s * 1e9 or not patience.is_alive():
                self._end(
                    InfrastructureError(
                        f"the server at {self._address} went away during the load with "
                        f"{self._concurrency} connections; look into its log, start it again "
                        "and repeat the measurement."
                    )
                )
                return
            oldest_ns = now_ns - int(patience.request_timeout_s * 1e9)
            for connection in list(self._connections):
                if connection.in_flight and connection.sent_ns < oldest_ns:
                    connection.give_up()

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(error)


def run_closed_loop(
    address: Address,
    requests: Sequence[bytes],
    concurrency: int,
    *,
    window_s: float,
    warmup_s: float,
    patience: Patience | None = None,
    before_window: Callable[[], None] = lambda: None,
) -> Window:
    """Load ``address`` with ``concurrency`` connections and return the window after the warm-up.

    ``before_window`` runs between the two, while no request is in flight. Blocks until the last
    request is answered. Raises InfrastructureError when the server cannot be reached or goes
    away.
    """

    async def load() -> Window:
        closed_loop = ClosedLoop(address, requests, concurrency, patience)
        try:
            await closed_loop.connect()
            if warmup_s > 0:
                await closed_loop.run(warmup_s)
            before_window()
            return await closed_loop.run(window_s)
        finally:
            await closed_loop.close()

    # An own loop, so that the event loop policy of the program stays as it is.
    with _no_garbage_collection(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load())


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep the cyclic collector out of the latencies; the load creates no cycles."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
