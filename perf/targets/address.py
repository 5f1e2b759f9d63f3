"""The address of a server: ``host:port`` without a scheme."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from trimton.core.errors import InputError

DEFAULT_HTTP_PORT = 8000
DEFAULT_GRPC_PORT = 8001


@dataclass(frozen=True)
class Address:
    """Host and port; prints as ``host:port``, an IPv6 host in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def parse(
        cls, text: str, default_port: int = DEFAULT_HTTP_PORT, port_of: str = "HTTP"
    ) -> Address:
        """Read ``host``, ``host:port`` or ``http://host:port``; InputError for anything else.

        ``port_of`` is the protocol that the port should speak, for the message.
        """
        url = urlsplit(text if "://" in text else f"http://{text}")
        try:
            host, port = url.hostname, url.port
        except ValueError:
            host, port = None, None
        if url.scheme != "http" or not host or url.path.strip("/") or url.query or url.username:
            raise InputError(
                f"{text!r} is no server address; give HOST:PORT of its {port_of} port, "
                f"for example localhost:{default_port}."
            )
        return cls(host, default_port if port is None else port)
