"""One HTTP/1.1 connection that carries one prepared request at a time.

The hot path is: write the bytes, parse the status line and the framing of the answer, report.
The body is looked at only where the status is an error, because every microsecond that the
generator spends is taken from a server on the same machine. An answer that begins with the same
head as the last one and is as long needs no parsing at all.
"""

from __future__ import annotations

import asyncio
from time import monotonic_ns
from typing import cast

import httptools

from trimton.perf.load.connection import CLOSED, MALFORMED, TIMED_OUT, OnAnswer, OnFailure
from trimton.perf.load.http_answer import error_text
from trimton.perf.targets.address import Address
from trimton.perf.targets.tls import Tls

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"


class HttpConnector:
    """Opens HTTP/1.1 connections to one server, secured where ``tls`` is given.

    Raises InputError for TLS files that cannot be used.
    """

    def __init__(self, address: Address, tls: Tls | None = None) -> None:
        self._address = address
        self._ssl = None if tls is None else tls.context(["http/1.1"])

    @property
    def where(self) -> str:
        """The server, for messages: ``host:port``."""
        return str(self._address)

    async def open(self, on_answer: OnAnswer, on_failure: OnFailure) -> HttpConnection:
        """A new connection; OSError where the server does not accept it."""
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: HttpConnection(on_answer, on_failure),
            self._address.host,
            self._address.port,
            ssl=self._ssl,
        )
        return connection


class HttpConnection(asyncio.Protocol):
    """Sends prepared requests, one in flight, and reports how each ended.

    ``on_answer(connection, finished_ns)`` follows an answer of status 200;
    ``on_failure(connection, kind, text)`` anything else. After a failure, or when
    ``reusable`` is False, the connection must be replaced.
    """

    __slots__ = (
        "_complete",
        "_keeps_alive",
        "_known_bytes",
        "_known_head",
        "_on_answer",
        "_on_failure",
        "_parser",
        "_received",
        "_transport",
        "has_answered",
        "in_flight",
        "reusable",
        "sent_ns",
    )

    def __init__(self, on_answer: OnAnswer, on_failure: OnFailure) -> None:
        self._on_answer = on_answer
        self._on_failure = on_failure
        self._parser = httptools.HttpResponseParser(self)
        self._received: list[bytes] = []
        self._complete = 0
        self._known_head = b""
        self._known_bytes = 0
        self._keeps_alive = True
        self._transport: asyncio.Transport | None = None
        self.has_answered = False
        self.in_flight = False
        self.reusable = False
        self.sent_ns = 0

    @property
    def answer(self) -> bytes:
        """The last answer, head and body, until the next request is sent."""
        return b"".join(self._received)

    def send(self, request: bytes) -> None:
        """Write ``request`` and start its clock (monotonic, nanoseconds)."""
        assert self._transport is not None, "send needs a connected transport"
        self.in_flight = True
        self._received.clear()
        self.sent_ns = monotonic_ns()
        self._transport.write(request)

    def close(self) -> None:
        """Drop the connection without a report."""
        self.in_flight = False
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def give_up(self) -> None:
        """End a request that takes too long: reported as timed out, the connection dropped."""
        self._fail(TIMED_OUT, "no answer within the time limit")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.reusable = True

    def on_message_complete(self) -> None:
        self._complete += 1
        # The parser knows this only until it starts on the next message.
        self._keeps_alive = self._parser.should_keep_alive()

    def data_received(self, data: bytes) -> None:
        if (
            len(data) == self._known_bytes
            and self.in_flight
            and not self._received
            and data.startswith(self._known_head)
        ):
            self._received.append(data)
            self.in_flight = False
            self._on_answer(self, monotonic_ns())
            return
        self._received.append(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(MALFORMED, str(error))
            return
        if not self._complete:
            return
        finished_ns = monotonic_ns()
        if self._complete > 1 or not self.in_flight:
            self._fail(MALFORMED, "the server sent more answers than there were requests")
            return
        self._complete = 0
        self.has_answered = True
        self.in_flight = False
        if not self._keeps_alive:
            self.close()
        status = self._parser.get_status_code()
        if status == 200:
            self._know(data)
            self._on_answer(self, finished_ns)
        else:
            self._on_failure(self, f"HTTP {status}", error_text(self.answer))

    def _know(self, data: bytes) -> None:
        """Keep the head of a whole answer that came at once and tells its length."""
        if len(self._received) > 1 or not self._keeps_alive:
            return
        head = data[: data.find(_HEAD_END) + len(_HEAD_END)]
        if _LENGTH in head.lower():
            self._known_head = head
            self._known_bytes = len(data)

    def connection_lost(self, exc: Exception | None) -> None:
        reason = str(exc) if exc else "the server closed the connection before it answered"
        self._fail(CLOSED, reason)

    def _fail(self, kind: str, text: str) -> None:
        was_in_flight = self.in_flight
        self.close()
        if was_in_flight:
            self._on_failure(self, kind, text)
