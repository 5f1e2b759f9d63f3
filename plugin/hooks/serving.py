"""Listening: the token's file, the socket, and clients that never finish a request's head."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from trimton.core.errors import InfrastructureError, InputError

LOG = logging.getLogger("trimton.hooks")
TOKEN_CHARACTERS_MIN = 32
TOKEN_CHARACTERS_MAX = 4096

HEAD_S = 5.0
HEAD_BYTES_MAX = 16 << 10
CONNECTIONS_MAX = 128
_LEAVE_S = 10


@dataclass(frozen=True)
class Tls:
    """A server's certificate (with its chain) and private key, in PEM files."""

    certificate: Path
    key: Path


class HeadDeadlineProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose request does not begin within HEAD_S.

    Uvicorn waits for the first bytes of the next request, but not for the end of its head.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start to wait for the first request."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Wait until the head is whole, from the first byte of each request on."""
        self._expect_head()
        super().data_received(data)
        if self._is_answering():
            self._stop_waiting()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._deadline is None and not self._is_answering():
            self._deadline = self.loop.call_later(HEAD_S, self._close_late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close_late(self) -> None:
        self._deadline = None
        if not self._is_answering() and not self.transport.is_closing():
            who = self.client[0] if self.client else "?"
            LOG.warning("closed: %s sent no whole request within %g s", who, HEAD_S)
            self.transport.close()


def read_token(path: Path) -> bytes:
    """The token in a file that is closed to other users, without the white space around it.

    Raises InputError for a file that cannot be read or is open to all, and for a token that is
    short or not printable ASCII.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            token = file.read(TOKEN_CHARACTERS_MAX + 2).strip()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{path}: the token cannot be read ({reason}).") from error
    if mode & stat.S_IRWXO:
        raise InputError(f"{path}: is open to every user of this host; run chmod o= on it.")
    is_plain = all(0x21 <= byte <= 0x7E for byte in token)
    if not is_plain or not TOKEN_CHARACTERS_MIN <= len(token) <= TOKEN_CHARACTERS_MAX:
        raise InputError(
            f"{path}: a token is {TOKEN_CHARACTERS_MIN} to {TOKEN_CHARACTERS_MAX} printable "
            f"characters without spaces; make one with 'openssl rand -hex 32'."
        )
    return token


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; InputError where the address cannot be had. Port 0 is any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=CONNECTIONS_MAX)
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise InputError(f"cannot listen on {host}:{port} ({reason}); choose another.") from error


def serve(app: ASGIApp, listening: socket.socket, tls: Tls | None = None) -> None:
    """Answer on ``listening`` until the process is told to end (SIGINT, SIGTERM).

    Requests that are being answered then are finished. Raises InputError for a certificate that
    cannot be used, and InfrastructureError if the server ends by itself.
    """
    config = uvicorn.Config(
        app,
        http=HeadDeadlineProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(HEAD_S),
        timeout_graceful_shutdown=_LEAVE_S,
        limit_concurrency=CONNECTIONS_MAX,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        ssl_certfile=None if tls is None else tls.certificate,
        ssl_keyfile=None if tls is None else tls.key,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        named = "" if tls is None else f"{tls.certificate} and {tls.key}"
        raise InputError(f"{named}: are no certificate and its key ({error}).") from error
    server = uvicorn.Server(config)
    # Uvicorn leaves in good order, then raises the signal again for whoever waits for it.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    server.run(sockets=[listening])
    if not server.started:
        raise InfrastructureError("the hook server did not start; see its log.")
