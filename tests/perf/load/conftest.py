"""A real HTTP/2 peer on loopback that a test scripts frame by frame."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from struct import pack, unpack

import hpack
import pytest

from trimton.perf.targets.address import Address

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0,
    1,
    3,
    4,
    6,
    7,
    8,
    9,
)
END_STREAM, END_HEADERS, PADDED = 0x1, 0x4, 0x8
MESSAGE = b"\0\0\0\0\x05hello"


@dataclass
class Call:
    """One request as the peer received it."""

    number: int
    stream_id: int
    fields: dict[str, str]
    header_block: bytes
    content: bytes = b""
    frame_sizes: list[int] = field(default_factory=list)


class Link:
    """The peer's end of one TCP connection, with one lock for writing."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.encoder = hpack.Encoder()
        self.encoder.header_table_size = 0
        self.decoder = hpack.Decoder()
        self._buffer = b""

    def frame(self, kind: int, flags: int, stream_id: int, payload: bytes = b"") -> None:
        head = pack(">L", len(payload))[1:] + pack(">BBL", kind, flags, stream_id)
        self.socket.sendall(head + payload)

    def headers(self, stream_id: int, fields: list[tuple[str, str]], *, ends: bool) -> None:
        flags = END_HEADERS | (END_STREAM if ends else 0)
        self.frame(HEADERS, flags, stream_id, self.encoder.encode(fields))

    def answer(self, stream_id: int, message: bytes = MESSAGE) -> None:
        """A good answer to a unary call."""
        self.headers(
            stream_id, [(":status", "200"), ("content-type", "application/grpc")], ends=False
        )
        self.frame(DATA, 0, stream_id, message)
        self.headers(stream_id, [("grpc-status", "0")], ends=True)

    def refuse(self, stream_id: int, status: int, message: str) -> None:
        """An answer of trailers only."""
        fields = [(":status", "200"), ("grpc-status", str(status)), ("grpc-message", message)]
        self.headers(stream_id, fields, ends=True)

    def read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the client closed the connection")
            self._buffer += data
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def read_frame(self) -> tuple[int, int, int, bytes]:
        head = self.read(9)
        length = int.from_bytes(head[:3])
        kind, flags, stream_id = unpack(">BBL", head[3:])
        return kind, flags, stream_id, self.read(length)


Behaviour = Callable[[Link, Call], None]


class Http2Peer:
    """Reacts to every whole request with ``behaviour``; remembers what it saw.

    ``settings`` is what it announces; with ``grants_window`` False it gives no window back by
    itself.
    """

    def __init__(
        self,
        behaviour: Behaviour,
        settings: dict[int, int] | None = None,
        *,
        grants_window: bool = True,
        greeting: bytes | None = None,
        port: int = 0,
    ) -> None:
        self.behaviour = behaviour
        self.settings = settings or {}
        self.grants_window = grants_window
        self.greeting = greeting
        self.calls: list[Call] = []
        self.connections = 0
        self.acknowledged_settings = 0
        self.acknowledged_pings: list[bytes] = []
        self.resets: list[int] = []
        self.announced: dict[int, int] = {}
        self.window_updates: list[tuple[int, int]] = []
        self._numbers = itertools.count()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.address = Address("127.0.0.1", self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._sockets):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                self._sockets.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        link = Link(connection)
        calls: dict[int, Call] = {}
        with suppress(OSError), connection:
            if self.greeting is not None:
                connection.sendall(self.greeting)
                connection.recv(65536)
                return
            assert link.read(len(PREFACE)) == PREFACE
            payload = b"".join(pack(">HL", key, value) for key, value in self.settings.items())
            link.frame(SETTINGS, 0, 0, payload)
            while True:
                self._react(link, calls, *link.read_frame())
        self._sockets.discard(connection)

    def _react(
        self,
        link: Link,
        calls: dict[int, Call],
        kind: int,
        flags: int,
        stream_id: int,
        payload: bytes,
    ) -> None:
        if kind == HEADERS:
            fields = dict(link.decoder.decode(payload))
            call = Call(next(self._numbers), stream_id, fields, payload)
            calls[stream_id] = call
            self.calls.append(call)
        elif kind == DATA:
            call = calls[stream_id]
            call.content += payload
            call.frame_sizes.append(len(payload))
            if self.grants_window and payload:
                link.frame(WINDOW_UPDATE, 0, 0, pack(">L", len(payload)))
                link.frame(WINDOW_UPDATE, 0, stream_id, pack(">L", len(payload)))
            if flags & END_STREAM or call.fields[":path"].endswith("Stream"):
                self.behaviour(link, call)
        elif kind == SETTINGS and flags:
            self.acknowledged_settings += 1
        elif kind == SETTINGS:
            for position in range(0, len(payload), 6):
                key, value = unpack(">HL", payload[position : position + 6])
                self.announced[key] = value
        elif kind == PING and flags:
            self.acknowledged_pings.append(payload)
        elif kind == RST_STREAM:
            self.resets.append(stream_id)
        elif kind == WINDOW_UPDATE:
            self.window_updates.append((stream_id, int.from_bytes(payload)))


class Peers:
    """Peers that end with the test."""

    def __init__(self) -> None:
        self.started: list[Http2Peer] = []

    def start(self, behaviour: Behaviour, settings: dict[int, int] | None = None, **options):
        peer = Http2Peer(behaviour, settings, **options)
        self.started.append(peer)
        return peer

    def answering(self, settings: dict[int, int] | None = None, **options) -> Http2Peer:
        """A peer that answers every call well."""
        return self.start(lambda link, call: link.answer(call.stream_id), settings, **options)


@pytest.fixture
def peers() -> Iterator[Peers]:
    made = Peers()
    yield made
    for peer in made.started:
        peer.stop()
