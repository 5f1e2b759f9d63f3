"""Who may ask, and how much and how long: before a request reaches what answers it.

The token comes first, so that nothing of a stranger's body is read; the body next, up to its limits
in bytes and seconds; the answer has a time limit, too. Every request is logged in one line.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trimton.plugin.hooks.metrics import HookMetrics

LOG = logging.getLogger("trimton.hooks")
NOTE = "trimton.note"  # key of the scope: what the log says of the answer
OPEN_PATHS = frozenset({"/healthz"})


@dataclass(frozen=True)
class Limits:
    """What one request may take."""

    body_bytes: int = 64 << 10
    body_s: float = 5.0
    answer_s: float = 30.0


class _RefusedError(Exception):
    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None):
        super().__init__(sentence)
        self.status = status
        self.headers = {"connection": "close", **(headers or {})}


class Guard:
    """ASGI middleware around ``app``; ``token`` is what every request but health must carry."""

    def __init__(self, app: ASGIApp, token: bytes, limits: Limits, metrics: HookMetrics) -> None:
        self._app = app
        self._token = token
        self._limits = limits
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what is no HTTP request (there is none) is refused."""
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} here")
        started = time.monotonic()
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        scope[NOTE] = ""
        try:
            await self._answer(scope, receive, watched)
        except _RefusedError as refused:
            scope[NOTE] = str(refused)
            await _send_refusal(watched, refused)
        finally:
            seconds = time.monotonic() - started
            self._metrics.request(scope["path"], status, seconds)
            level = logging.INFO if status < 400 else logging.WARNING
            LOG.log(level, "%s", _line(scope, status, seconds))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if scope["path"] not in OPEN_PATHS:
            self._check_token(headers.get(b"authorization", b""))
        body = await self._read_body(headers, receive)
        is_read = False

        async def replay() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            async with asyncio.timeout(self._limits.answer_s):
                await self._app(scope, replay, send)
        except TimeoutError:
            sentence = f"no answer was found within {self._limits.answer_s:g} s; ask again."
            raise _RefusedError(503, sentence) from None

    def _check_token(self, header: bytes) -> None:
        if not hmac.compare_digest(_given_token(header), self._token):
            sentence = "the token is missing or wrong; send 'Authorization: Bearer TOKEN'."
            raise _RefusedError(401, sentence, {"www-authenticate": "Bearer"})

    async def _read_body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        limit = self._limits.body_bytes
        too_large = _RefusedError(413, f"the body is over {limit} bytes.")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_s):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _RefusedError(400, "the client left before its body ended.")
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > limit:
                        raise too_large
        except TimeoutError:
            sentence = f"the body did not come within {self._limits.body_s:g} s."
            raise _RefusedError(408, sentence) from None
        return bytes(body)


def _given_token(header: bytes) -> bytes:
    """The token of an Authorization header: Bearer's, or the password of Basic.

    Flagger sends no headers of one's own, but sends the user and password of a URL as Basic.
    """
    scheme, _, value = header.partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""


async def _send_refusal(send: Send, refused: _RefusedError) -> None:
    body = json.dumps({"error": str(refused)}).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **refused.headers,
    }
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _line(scope: Mapping[str, Any], status: int, seconds: float) -> str:
    client = scope.get("client") or ("?", 0)
    text = (
        f"{scope['method']} {scope['path'][:200]} {status} from {client[0]} "
        f"in {1000 * seconds:.0f} ms {scope[NOTE]}"
    )
    return "".join(c if c.isprintable() else "?" for c in text).rstrip()
