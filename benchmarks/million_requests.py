"""A million requests in one run: does the client's memory stay flat?

The server is a process of its own that answers at once, and answers one request in a thousand
with HTTP 500 on purpose. One closed loop, and one open loop by schedule, each sends a million
requests; the client's resident memory is read ten times on the way. The counts at the end must be
exact.

    python benchmarks/million_requests.py [--requests N]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import cast

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from trimton.perf.load.closed_loop import run_closed_loop
from trimton.perf.load.http_connection import HttpConnector
from trimton.perf.load.open_loop import run_open_loop
from trimton.perf.load.schedules import ConstantRate
from trimton.perf.load.tally import OnRequest, Tally
from trimton.perf.targets.address import Address

FAILS_ONE_IN = 1000
READINGS = 10
REQUEST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
FAILURE = b'HTTP/1.1 500 Oops\r\nContent-Length: 22\r\n\r\n{"error":"on purpose"}\n'[:-1]


def answer(ready: Connection) -> None:
    """Answer every request at once; one in FAILS_ONE_IN fails."""
    count = 0

    class Answering(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.Transport, transport)
            self.received = 0

        def data_received(self, data: bytes) -> None:
            nonlocal count
            self.received += len(data)
            while self.received >= len(REQUEST):
                self.received -= len(REQUEST)
                count += 1
                self.transport.write(FAILURE if count % FAILS_ONE_IN == 0 else OK)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


@contextmanager
def answering_server() -> Iterator[Address]:
    """The server in a process of its own, until the block ends."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=answer, args=(there,), daemon=True)
    process.start()
    try:
        yield Address("127.0.0.1", here.recv())
    finally:
        process.terminate()
        process.join()


class Memory:
    """Reads this process's resident memory ten times over ``requests`` requests."""

    def __init__(self, requests: int) -> None:
        self._process = psutil.Process()
        self._every = requests // READINGS
        self._count = 0
        self.readings_mib: list[float] = []

    def on_request(self, started_ns: int, finished_ns: int) -> None:
        self._count += 1
        if self._count % self._every == 1:
            self.readings_mib.append(self._process.memory_info().rss / 2**20)


def closed_loop(address: Address, requests: int, on_request: OnRequest) -> Tally:
    return run_closed_loop(
        address,
        [REQUEST],
        16,
        window_s=0,
        warmup_s=0.5,
        request_count=requests,
        on_request=on_request,
    )


def open_loop(address: Address, requests: int, on_request: OnRequest) -> Tally:
    """At half of what a closed loop reaches."""
    probe = run_closed_loop(address, [REQUEST], 16, window_s=1.0, warmup_s=0.5)
    rate_rps = probe.requests / probe.duration_s / 2
    instants_ns = ConstantRate(rate_rps).instants_ns(requests / rate_rps, 0)[:requests]
    return run_open_loop(HttpConnector(address), [REQUEST], instants_ns, on_request=on_request)


MODES: dict[str, Callable[[Address, int, OnRequest], Tally]] = {
    "closed loop": closed_loop,
    "open loop": open_loop,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    options = parser.parse_args()
    screen = Console(width=110)
    table = Table("mode", "answered", "failed", "s", "RSS MiB over time", "growth", box=None)
    for name, run in MODES.items():
        with answering_server() as address:
            memory = Memory(options.requests)
            tally = run(address, options.requests, memory.on_request)
        failed = tally.errors.total()
        assert tally.requests + failed == options.requests, tally.errors
        # The warm-up moves where in a thousand the failures fall, by one at most.
        assert abs(failed - options.requests / FAILS_ONE_IN) <= 1, tally.errors
        readings = memory.readings_mib
        table.add_row(
            name,
            str(tally.requests),
            str(failed),
            f"{tally.duration_s:.0f}",
            " ".join(f"{value:.0f}" for value in readings),
            f"{readings[-1] - readings[1]:+.1f} MiB",
        )
    screen.print(table)


if __name__ == "__main__":
    main()
