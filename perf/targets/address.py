"""The address of a server: ``host:port`` without a scheme."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from trimton.core.errors import InputError

DEFAULT_HTTP_PORT = 8000


@dataclass(frozen=True)
class Address:
    """Host and port; prints as ``host:port``, an IPv6 host in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``host``, ``host:port`` or ``http://host:port``; InputError for anything else."""
        url = urlsplit(text if "://" in text else f"http://{text}")
        try:
            host, port = url.hostname, url.port
        except ValueError:
            host, port = None, None
        if url.scheme != "http" or not host or url.path.strip("/") or url.query or url.username:
            raise InputError(
                f"{text!r} is no server address; give HOST:PORT of its HTTP port, "
                f"for example localhost:{DEFAULT_HTTP_PORT}."
            )
        return cls(host, DEFAULT_HTTP_PORT if port is None else port)
