"""One exchange on an HTTP/2 connection.

Source: RFC 9113, section 5 (streams).
"""

from __future__ import annotations

from trimton.perf.load.hpack_blocks import Fields


class Http2Stream:
    """One exchange on a connection; a protocol above HTTP/2 derives from it.

    ``received_bytes`` counts the content of the answer so far.
    """

    __slots__ = ("ends", "id", "pending", "received_bytes", "send_window")

    def __init__(self) -> None:
        self.id = 0
        self.ends = True
        self.send_window = 0
        self.received_bytes = 0
        self.pending = memoryview(b"")

    def on_headers(self, fields: Fields) -> None:
        """Header fields that do not end the stream."""

    def on_data(self, data: bytes) -> None:
        """A piece of the content; called only where ``wants_data``."""

    def on_end(self, fields: Fields) -> None:
        """The stream ended; ``fields`` are its trailers (empty without any)."""
        raise NotImplementedError

    def on_failure(self, kind: str, text: str) -> None:
        """The stream was cut off."""
        raise NotImplementedError
