"""What every mode of load shares: connections that are opened, watched and replaced.

A failed request is counted and its connection replaced; the load goes on. Only a server that
stays away ends it.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic_ns
from typing import TypeVar

import uvloop

from trimton.core.errors import InfrastructureError
from trimton.perf.load.connection import Connection, Connector
from trimton.perf.load.patience import Patience

REFUSED = "connection refused"
TIMED_OUT = "timed out"

_WATCH_INTERVAL_S = 0.05
_RECONNECT_DELAY_S = 0.02
_RECONNECT_DELAY_MAX_S = 0.5

T = TypeVar("T")


class LoadLoop(ABC):
    """The connections of one load, kept open from the warm-up through the window."""

    def __init__(
        self, connector: Connector, requests: Sequence[bytes], patience: Patience | None = None
    ) -> None:
        self._connector = connector
        self._requests: Iterator[bytes] = itertools.cycle(requests)
        self._patience = patience or Patience()
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished: asyncio.Future[None]
        self._reached_ns = monotonic_ns()
        self._answers = 0
        self._answers_at_loss = -1

    async def connect(self, count: int) -> None:
        """Open ``count`` connections; InfrastructureError if the server does not accept them."""
        try:
            for _ in range(count):
                await self._open_connection()
        except OSError as error:
            raise InfrastructureError(
                f"the server at {self._connector.where} does not accept connections "
                f"({error.strerror or error}); check that it runs and the address is right."
            ) from error

    async def close(self) -> None:
        """Drop every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._connections:
            connection.close()

    @abstractmethod
    def _on_answer(self, connection: Connection, finished_ns: int) -> None:
        """A request succeeded."""

    @abstractmethod
    def _on_failure(self, connection: Connection, kind: str, text: str) -> None:
        """A request failed."""

    @abstractmethod
    def _use(self, connection: Connection) -> None:
        """``connection`` is new and free."""

    @abstractmethod
    def _wants_connection(self) -> bool:
        """Whether a broken connection needs a successor."""

    @abstractmethod
    def _on_refusal(self, reason: str) -> None:
        """The server refused a connection that was wanted."""

    @abstractmethod
    def _on_no_connection(self) -> None:
        """A connection that was being opened is not wanted any more."""

    @abstractmethod
    def _on_tick(self, now_ns: int) -> None:
        """Called some twenty times a second."""

    async def _until_finished(self) -> None:
        """Wait for ``_end``; raises what it was given."""
        self._finished = asyncio.get_running_loop().create_future()
        self._reached_ns = monotonic_ns()
        watch = self._spawn(self._watch())
        try:
            await self._finished
        finally:
            watch.cancel()

    def _end(self, error: BaseException | None = None) -> None:
        if self._finished.done():
            return
        if error is None:
            self._finished.set_result(None)
        else:
            self._finished.set_exception(error)

    def _drop(self, connection: Connection) -> bool:
        """Forget a broken ``connection``; True if its successor should take its time.

        A server that drops connections without an answer would be called in a tight loop.
        """
        self._connections.discard(connection)
        fruitless = self._answers == self._answers_at_loss
        self._answers_at_loss = self._answers
        return fruitless

    async def _open_connection(self) -> Connection:
        try:
            connection = await asyncio.wait_for(
                self._connector.open(self._on_answer, self._on_failure),
                self._patience.request_timeout_s,
            )
        except TimeoutError:
            raise ConnectionError("no connection within the time limit") from None
        self._connections.add(connection)
        self._reached_ns = monotonic_ns()
        return connection

    async def _connect_again(self, *, wait: bool) -> None:
        delay_s = _RECONNECT_DELAY_S
        if wait:
            await asyncio.sleep(delay_s)
        while self._wants_connection():
            try:
                connection = await self._open_connection()
            except OSError as error:
                self._on_refusal(error.strerror or str(error))
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _RECONNECT_DELAY_MAX_S)
            else:
                self._use(connection)
                return
        self._on_no_connection()

    async def _watch(self) -> None:
        patience = self._patience
        while True:
            await asyncio.sleep(_WATCH_INTERVAL_S)
            now_ns = monotonic_ns()
            if not self._wants_connection() or any(c.reusable for c in self._connections):
                self._reached_ns = now_ns
            if now_ns - self._reached_ns > patience.server_gone_s * 1e9 or not patience.is_alive():
                self._end(
                    InfrastructureError(
                        f"the server at {self._connector.where} went away during the load; look "
                        "into its log, start it again and repeat the measurement."
                    )
                )
                return
            oldest_ns = now_ns - int(patience.request_timeout_s * 1e9)
            for connection in list(self._connections):
                if connection.in_flight and connection.sent_ns < oldest_ns:
                    connection.give_up()
            self._on_tick(now_ns)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(error)


def run_load(load: Callable[[], Coroutine[None, None, T]]) -> T:
    """Run ``load`` to its end on an event loop of its own.

    The event loop policy of the program stays as it is, and the cyclic collector stays out of
    the latencies: a load creates no cycles.
    """
    with _no_garbage_collection(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load())


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
