"""A real HTTP server on loopback whose answers a test scripts, down to the bytes."""

from __future__ import annotations

import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from trimton.perf.targets.address import Address

# Answers one request on its connection; False ends the connection.
Reaction = Callable[[socket.socket], bool]
Behaviour = Callable[[int], Reaction]

OK_BYTES = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 11\r\n\r\n"
    b"hello world"
)


class ScriptedServer:
    """Answers the n-th request (from 0, over all connections) with ``behaviour(n)``."""

    def __init__(self, behaviour: Behaviour, port: int = 0) -> None:
        self.behaviour = behaviour
        self.requests: list[bytes] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._connections: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self.address = Address("127.0.0.1", self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Close the port and every connection, as a killed process would."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._connections.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            buffer = b""
            while (parsed := self._read(connection, buffer)) is not None:
                request, buffer = parsed
                with self._lock:
                    number = next(self._numbers)
                    self.requests.append(request)
                    self.in_flight += 1
                    self.most_in_flight = max(self.most_in_flight, self.in_flight)
                try:
                    goes_on = self.behaviour(number)(connection)
                finally:
                    with self._lock:
                        self.in_flight -= 1
                if not goes_on:
                    break
        with self._lock:
            self._connections.discard(connection)

    @staticmethod
    def _read(connection: socket.socket, buffer: bytes) -> tuple[bytes, bytes] | None:
        while b"\r\n\r\n" not in buffer:
            data = connection.recv(65536)
            if not data:
                return None
            buffer += data
        head, _, rest = buffer.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while len(rest) < length:
            data = connection.recv(65536)
            if not data:
                return None
            rest += data
        return head + b"\r\n\r\n" + rest[:length], rest[length:]


def ok(connection: socket.socket) -> bool:
    connection.sendall(OK_BYTES)
    return True


def byte_by_byte(connection: socket.socket) -> bool:
    """Every boundary of status line, headers and body falls between two packets."""
    for byte in OK_BYTES:
        connection.sendall(bytes([byte]))
    return True


def chunked(connection: socket.socket) -> bool:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    connection.sendall(b"6\r\n world\r\n0\r\n\r\n")
    return True


def announced_close(connection: socket.socket) -> bool:
    connection.sendall(OK_BYTES.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    return False


def half_then_close(connection: socket.socket) -> bool:
    connection.sendall(OK_BYTES[:-4])
    return False


def half_then_reset(connection: socket.socket) -> bool:
    connection.sendall(OK_BYTES[:-4])
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def no_answer_then_close(connection: socket.socket) -> bool:
    return False


def answer_twice(connection: socket.socket) -> bool:
    connection.sendall(OK_BYTES + OK_BYTES)
    return True


def not_http(connection: socket.socket) -> bool:
    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
    return False


def silent(connection: socket.socket) -> bool:
    connection.recv(1)  # returns when the client gives up
    return False


def answer(status: int, document: object) -> Reaction:
    body = json.dumps(document).encode()

    def react(connection: socket.socket) -> bool:
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return True

    return react


def slowly(seconds: float) -> Reaction:
    def react(connection: socket.socket) -> bool:
        time.sleep(seconds)
        return ok(connection)

    return react


REACTIONS: dict[str, Reaction] = {
    function.__name__: function
    for function in (
        ok,
        byte_by_byte,
        chunked,
        announced_close,
        half_then_close,
        half_then_reset,
        no_answer_then_close,
        answer_twice,
        not_http,
        silent,
    )
}


class Scripts:
    """What a test uses: reactions by name, and servers that end with the test."""

    def __init__(self) -> None:
        self.servers: list[ScriptedServer] = []

    def start(self, behaviour: Behaviour, port: int = 0) -> ScriptedServer:
        server = ScriptedServer(behaviour, port)
        self.servers.append(server)
        return server

    def always(self, reaction: str) -> ScriptedServer:
        return self.start(lambda number: REACTIONS[reaction])

    def one_in(self, period: int, reaction: str | Reaction) -> ScriptedServer:
        """Every ``period``-th request gets ``reaction``, the others are answered."""
        special = REACTIONS[reaction] if isinstance(reaction, str) else reaction
        return self.start(lambda number: special if number % period == period - 1 else ok)

    @staticmethod
    def reaction(name: str) -> Reaction:
        """A reaction by its name."""
        return REACTIONS[name]

    answer = staticmethod(answer)
    slowly = staticmethod(slowly)


@pytest.fixture
def scripts() -> Iterator[Scripts]:
    made = Scripts()
    yield made
    for server in made.servers:
        server.stop()
