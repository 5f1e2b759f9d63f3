"""TCP connections of gRPC calls, each shared by several users."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from trimton.core.errors import InfrastructureError
from trimton.perf.load.hpack_blocks import Field
from trimton.perf.load.http2 import Http2Connection, ProtocolMismatchError
from trimton.perf.load.http2_frames import DEFAULT_FRAME_BYTES
from trimton.perf.targets.address import Address
from trimton.perf.targets.tls import Tls

# Small requests share a TCP connection: client, kernel and server handle those that are ready
# together at once, which with 64 in flight gives about twice the throughput of one connection
# each. Large ones would wait for each other in the flow control of one connection.
STREAMS_PER_TCP_CONNECTION = 64
_SMALL_MESSAGE_BYTES = DEFAULT_FRAME_BYTES

_SETTINGS_TIMEOUT_S = 10.0


def streams_for(message_bytes: int) -> int:
    """How many streams share a TCP connection where requests have up to ``message_bytes``."""
    return STREAMS_PER_TCP_CONNECTION if message_bytes <= _SMALL_MESSAGE_BYTES else 1


class Http2Pool:
    """TCP connections to one server's method, each shared by up to ``streams`` users."""

    def __init__(
        self,
        address: Address,
        method: str,
        *,
        tls: Tls | None = None,
        metadata: Sequence[Field] = (),
        streams: int = STREAMS_PER_TCP_CONNECTION,
        wants_data: bool = False,
    ) -> None:
        self.address = address
        self._ssl = None if tls is None else tls.context(["h2"])
        self._fields = request_fields(address, method, is_secure=tls is not None) + tuple(
            (name.lower(), value) for name, value in metadata
        )
        self._streams = streams
        self._wants_data = wants_data
        self._users: dict[Http2Connection, int] = {}

    async def acquire(self) -> Http2Connection:
        """A connection with room for one more user; OSError where the server accepts none.

        Raises InfrastructureError where what answers speaks no HTTP/2.
        """
        for http2, users in self._users.items():
            if http2.accepts_streams and users < min(self._streams, http2.most_streams):
                self._users[http2] = users + 1
                return http2
        http2 = await self._connect()
        self._users[http2] = 1
        return http2

    def release(self, http2: Http2Connection) -> None:
        """One user less; the last one closes the connection."""
        users = self._users.get(http2, 0) - 1
        if users > 0:
            self._users[http2] = users
        elif self._users.pop(http2, None) is not None and http2.is_open:
            http2.abort()

    async def _connect(self) -> Http2Connection:
        _, http2 = await asyncio.get_running_loop().create_connection(
            lambda: Http2Connection(self._fields, wants_data=self._wants_data),
            self.address.host,
            self.address.port,
            ssl=self._ssl,
        )
        try:
            await asyncio.wait_for(http2.ready, _SETTINGS_TIMEOUT_S)
        except TimeoutError:
            http2.abort()
            raise ConnectionError("no HTTP/2 settings came") from None
        except ProtocolMismatchError as error:
            raise InfrastructureError(
                f"what answers at {self.address} does not speak gRPC ({error}); give the gRPC "
                "port of the server (not HTTP or metrics)."
            ) from error
        return http2


def request_fields(address: Address, method: str, *, is_secure: bool) -> tuple[Field, ...]:
    """The header fields of a call of ``method``."""
    return (
        (":method", "POST"),
        (":scheme", "https" if is_secure else "http"),
        (":path", method),
        (":authority", str(address)),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "trimton"),
    )
