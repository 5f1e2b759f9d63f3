"""Closed loop: N connections, each sends its next request when the last is answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic_ns

from trimton.perf.load.connection import Connection, Connector
from trimton.perf.load.http_connection import HttpConnector
from trimton.perf.load.loop import REFUSED, LoadLoop, run_load
from trimton.perf.load.patience import Patience
from trimton.perf.load.span import Span
from trimton.perf.load.tally import OnRequest
from trimton.perf.load.window import Window
from trimton.perf.targets.address import Address

__all__ = ["ClosedLoop", "Patience", "run_closed_loop"]


class ClosedLoop(LoadLoop):
    """``concurrency`` requests in flight, for a time or for a number of requests."""

    def __init__(
        self,
        connector: Connector,
        requests: Sequence[bytes],
        concurrency: int,
        patience: Patience | None = None,
    ) -> None:
        super().__init__(connector, requests, patience)
        self._concurrency = concurrency
        self._tally: Window | Span = Window(0, 0)
        self._busy = 0
        self._unsent: float = 0

    async def run(self, duration_s: float, on_request: OnRequest | None = None) -> Window:
        """Load for ``duration_s``, wait for the requests in flight, and return the window.

        Raises InfrastructureError when the server is gone.
        """
        window = Window(int(duration_s * 1e9), self._concurrency, on_request=on_request)
        await self._run(window, float("inf"))
        return window

    async def run_count(self, count: int, on_request: OnRequest | None = None) -> Span:
        """Send exactly ``count`` requests and return their span.

        Raises InfrastructureError when the server is gone.
        """
        span = Span(count, on_request=on_request)
        span.open(monotonic_ns())
        await self._run(span, count)
        return span

    async def _run(self, tally: Window | Span, unsent: float) -> None:
        self._tally = tally
        self._unsent = unsent
        self._busy = self._concurrency
        idle = [c for c in self._connections if c.reusable]
        self._connections = set(idle)
        for connection in idle:
            self._use(connection)
        for _ in range(self._concurrency - len(idle)):
            self._spawn(self._connect_again(wait=False))
        await self._until_finished()

    def _on_answer(self, connection: Connection, finished_ns: int) -> None:
        # The hot path: what _next does, without the steps between.
        self._answers += 1
        tally = self._tally
        tally.answered(connection.sent_ns, finished_ns)
        if self._unsent > 0 and not tally.closed_ns and connection.reusable:
            self._unsent -= 1
            connection.send(next(self._requests))
        else:
            self._next(connection)

    def _on_failure(self, connection: Connection, kind: str, text: str) -> None:
        self._tally.failed(monotonic_ns(), kind, text)
        self._next(connection)

    def _next(self, connection: Connection) -> None:
        if connection.reusable:
            self._use(connection)
            return
        fruitless = self._drop(connection)
        if self._wants_connection():
            self._spawn(self._connect_again(wait=fruitless))
        else:
            self._retire()

    def _use(self, connection: Connection) -> None:
        if self._wants_connection():
            self._unsent -= 1
            connection.send(next(self._requests))
        else:
            self._retire()

    def _wants_connection(self) -> bool:
        return self._unsent > 0 and not self._tally.closed_ns

    def _on_refusal(self, reason: str) -> None:
        self._unsent -= 1
        self._tally.failed(monotonic_ns(), REFUSED, reason)

    def _on_no_connection(self) -> None:
        self._retire()

    def _on_tick(self, now_ns: int) -> None:
        """Nothing waits in a closed loop."""

    def _retire(self) -> None:
        """One of the N senders has nothing more to do."""
        self._busy -= 1
        if self._busy == 0:
            self._end()


def run_closed_loop(
    target: Address | Connector,
    requests: Sequence[bytes],
    concurrency: int,
    *,
    window_s: float,
    warmup_s: float,
    request_count: int | None = None,
    patience: Patience | None = None,
    before_window: Callable[[], None] = lambda: None,
    on_request: OnRequest | None = None,
) -> Window | Span:
    """Load ``target`` with ``concurrency`` connections and return the window after the warm-up.

    With ``request_count`` exactly so many requests are sent instead of for ``window_s``.
    ``before_window`` runs after the warm-up, while no request is in flight; ``on_request`` is
    told of every counted success. An Address is loaded over HTTP. Blocks until the last request
    is answered. Raises InfrastructureError when the server cannot be reached or goes away.
    """
    connector = HttpConnector(target) if isinstance(target, Address) else target

    async def load() -> Window | Span:
        closed_loop = ClosedLoop(connector, requests, concurrency, patience)
        try:
            await closed_loop.connect(concurrency)
            if warmup_s > 0:
                await closed_loop.run(warmup_s)
            before_window()
            if request_count is not None:
                return await closed_loop.run_count(request_count, on_request)
            return await closed_loop.run(window_s, on_request)
        finally:
            await closed_loop.close()

    return run_load(load)
