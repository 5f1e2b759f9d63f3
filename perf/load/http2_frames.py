"""HTTP/2 frames as bytes. Source: RFC 9113, sections 4 and 6."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from struct import Struct, iter_unpack, pack
from typing import Final

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
HEAD = Struct(">HBBBL")  # length (upper 16 bits, lower 8), type, flags, stream
DEFAULT_WINDOW_BYTES = 65_535
DEFAULT_FRAME_BYTES = 16_384
LARGEST_WINDOW_BYTES = 2**31 - 1
LARGEST_STREAM_ID = 2**31 - 1


# Plain integers instead of enumerations: these are compared for every frame.
class Kind:
    """Types of frames."""

    DATA: Final = 0
    HEADERS: Final = 1
    RST_STREAM: Final = 3
    SETTINGS: Final = 4
    PING: Final = 6
    GOAWAY: Final = 7
    WINDOW_UPDATE: Final = 8
    CONTINUATION: Final = 9


class Flag:
    """Flags of frames; ACK belongs to SETTINGS and PING."""

    ACK: Final = 0x1
    END_STREAM: Final = 0x1
    END_HEADERS: Final = 0x4
    PADDED: Final = 0x8
    PRIORITY: Final = 0x20


class Setting:
    """What a peer announces about itself."""

    HEADER_TABLE_SIZE: Final = 1
    ENABLE_PUSH: Final = 2
    MAX_CONCURRENT_STREAMS: Final = 3
    INITIAL_WINDOW_SIZE: Final = 4
    MAX_FRAME_SIZE: Final = 5


class ErrorCode(IntEnum):
    """Why a stream or a connection was ended."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One whole frame."""
    return frame_head(kind, flags, stream_id, len(payload)) + payload


def frame_head(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """The nine bytes before a payload of ``length``."""
    return HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream_id)


def settings(values: Mapping[int, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(pack(">HL", key, value) for key, value in values.items())
    return frame(Kind.SETTINGS, 0, 0, payload)


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """The pairs of a SETTINGS payload; ValueError where it is cut."""
    if len(payload) % 6:
        raise ValueError("a SETTINGS frame of a broken length")
    return iter_unpack(">HL", payload)


def window_update(stream_id: int, more_bytes: int) -> bytes:
    """Lets the peer send ``more_bytes`` on a stream, or with stream 0 on the connection."""
    return frame(Kind.WINDOW_UPDATE, 0, stream_id, pack(">L", more_bytes))


def reset(stream_id: int, code: ErrorCode) -> bytes:
    """Ends one stream at once."""
    return frame(Kind.RST_STREAM, 0, stream_id, pack(">L", code))


def unpadded(flags: int, payload: bytes) -> bytes:
    """The content of a DATA or HEADERS payload; ValueError for impossible padding."""
    start, end = 0, len(payload)
    if flags & Flag.PADDED:
        if not payload:
            raise ValueError("a padded frame without its length of padding")
        start, end = 1, end - payload[0]
    if flags & Flag.PRIORITY:
        start += 5
    if start > end:
        raise ValueError("a frame with more padding than content")
    return payload[start:end]


def error_name(code: int) -> str:
    """The name of an error code, or its number."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"error {code}"
