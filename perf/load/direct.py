"""An event loop for one request in flight: answers are read in place, without waking anything.

An event loop asks the kernel which connection has something, then reads it. With one request in
flight there is nothing to ask: after the request only its answer can come, so a blocking read does
both. On a server that answers at once this saves about half of the client's CPU.

Whatever else runs in the loop (time limits, reconnecting) gets its turn every 50 ms, so this is no
loop for several connections.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from time import monotonic_ns
from typing import Any, Protocol, cast

import uvloop

_TURN_NS = 50_000_000
_RECEIVE_TIMEOUT = struct.pack("ll", 0, _TURN_NS // 1000)  # struct timeval
_RECEIVE_BYTES = 1 << 18


class Awaiting(Protocol):
    """A protocol that knows whether it waits for an answer."""

    @property
    def is_waiting(self) -> bool: ...

    def data_received(self, data: bytes) -> None: ...

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...


class DirectTransport(asyncio.Transport):
    """A TCP connection that is read by ``pump`` and written at once."""

    def __init__(self, connected: socket.socket, protocol: Awaiting) -> None:
        super().__init__()
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _RECEIVE_TIMEOUT)
        connected.settimeout(None)
        self._socket = connected
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._is_closed = False
        self._readable: asyncio.Future[None] | None = None
        self._pump = self._loop.create_task(self._read())

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send all of ``data``; a connection that was lost is reported later."""
        if self._is_closed:
            return
        try:
            self._socket.sendall(data)
        except OSError as error:
            self._lose(error)

    def is_closing(self) -> bool:
        """Whether the connection was closed or lost."""
        return self._is_closed

    def close(self) -> None:
        """Nothing is buffered, so this is ``abort``."""
        self.abort()

    def abort(self) -> None:
        """Close at once; the protocol is told later."""
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._readable is not None:
            self._loop.remove_reader(self._socket)
            if not self._readable.done():
                self._readable.set_result(None)
        self._socket.close()
        self._loop.call_soon(self._protocol.connection_lost, error)

    async def _read(self) -> None:
        while not self._is_closed:
            if not self._protocol.is_waiting:
                await self._until_readable()
            turn_ends_ns = monotonic_ns() + _TURN_NS
            while not self._is_closed and monotonic_ns() < turn_ends_ns:
                self._read_once()
                if not self._protocol.is_waiting:
                    break
            await asyncio.sleep(0)

    def _read_once(self) -> None:
        """Block until something comes, 50 ms at most."""
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._lose(None)

    async def _until_readable(self) -> None:
        """Wait as any event loop does: nothing was asked, so nothing but the end may ever come."""
        self._readable = self._loop.create_future()
        self._loop.add_reader(self._socket, self._wake)
        try:
            await self._readable
        finally:
            if not self._is_closed:
                self._loop.remove_reader(self._socket)
                self._socket.setblocking(True)  # libuv polls with O_NONBLOCK and leaves it set
            self._readable = None

    def _wake(self) -> None:
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)


class DirectLoop(uvloop.Loop):
    """A uvloop whose plain TCP connections are direct; their protocols must be Awaiting."""

    async def create_connection(  # type: ignore[override]  # the part of it that a load uses
        self, protocol_factory: Callable[[], Awaiting], host: str, port: int, *, ssl: Any = None
    ) -> tuple[asyncio.BaseTransport, Awaiting]:
        """As an event loop's; with ``ssl`` it is that."""
        if ssl is not None:
            connect = cast(Any, super().create_connection)
            return cast(
                tuple[asyncio.BaseTransport, Awaiting],
                await connect(protocol_factory, host, port, ssl=ssl),
            )
        protocol = protocol_factory()
        error: OSError | None = None
        for family, kind, number, _, address in await self.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        ):
            connecting = socket.socket(family, kind, number)
            connecting.setblocking(False)
            try:
                await self.sock_connect(connecting, address)
            except OSError as refusal:
                connecting.close()
                error = refusal
            except asyncio.CancelledError:
                connecting.close()
                raise
            else:
                transport = DirectTransport(connecting, protocol)
                protocol.connection_made(transport)
                return transport, protocol
        raise error or OSError(f"{host} has no address")
