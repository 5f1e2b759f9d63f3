"""How a server is reached: its address, the security of the connection, who asks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from trimton.core.errors import InputError
from trimton.perf.targets.address import Address
from trimton.perf.targets.tls import Tls

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TEXT = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True)
class Access:
    """``headers`` go with every request (HTTP header fields, gRPC metadata)."""

    address: Address
    tls: Tls | None = None
    headers: tuple[tuple[str, str], ...] = ()


def parse_headers(texts: Iterable[str], token: str | None = None) -> tuple[tuple[str, str], ...]:
    """Headers from ``NAME: VALUE`` texts, and the bearer ``token`` as one of them.

    Raises InputError for what is no header field.
    """
    headers = []
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or not _TEXT.fullmatch(value.strip()):
            raise InputError(
                f"--header {text!r}: give NAME: VALUE in ASCII, for example 'x-tenant: blue'."
            )
        headers.append((name, value.strip()))
    if token is not None:
        if not token or not _TEXT.fullmatch(token):
            raise InputError("the bearer token must be ASCII text without line breaks.")
        headers.append(("Authorization", f"Bearer {token}"))
    return tuple(headers)
