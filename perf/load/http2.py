"""An HTTP/2 client connection that spends as little as possible on each request.

Requests are prepared messages: of a small one, header fields and content leave in one write,
and only the stream's number differs from the last. Of an answer only frame heads are looked at,
and the header fields at its end. Everything the protocol demands besides is here too: flow
control in both directions, SETTINGS, PING, GOAWAY, RST_STREAM, CONTINUATION and padding.

Source: RFC 9113.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from time import monotonic_ns
from typing import cast

from trimton.perf.load import http2_frames as h2
from trimton.perf.load.answer_shape import AnswerShape
from trimton.perf.load.connection import CLOSED, MALFORMED
from trimton.perf.load.hpack_blocks import (
    DEFAULT_TABLE_BYTES,
    Field,
    Fields,
    RequestBlocks,
    ResponseBlocks,
)
from trimton.perf.load.http2_frames import HEAD, HEAD_BYTES, ErrorCode, Flag, Kind, Setting
from trimton.perf.load.http2_stream import Http2Stream

RESET = "stream reset"

_SETTINGS = h2.settings(
    {
        Setting.HEADER_TABLE_SIZE: 0,
        Setting.ENABLE_PUSH: 0,
        Setting.INITIAL_WINDOW_SIZE: h2.LARGEST_WINDOW_BYTES,
    }
)
# The peer may always send this much more; given back when half of it is used.
_RECEIVE_WINDOW_BYTES = h2.LARGEST_WINDOW_BYTES
_GIVE_BACK_BYTES = _RECEIVE_WINDOW_BYTES // 2
_PING_ACK = h2.frame_head(Kind.PING, Flag.ACK, 0, 8)
_SETTINGS_ACK = h2.frame(Kind.SETTINGS, Flag.ACK, 0)
_UNLIMITED = 2**31
# So often the shape of answers is looked for: a model with outputs of ever new sizes has none.
_SHAPES_TRIED = 256
# Type and flags of a DATA frame.
_LAST_DATA = bytes([Kind.DATA, Flag.END_STREAM])
_MORE_DATA = bytes([Kind.DATA, 0])
# Names of the hot path: a look into this module is quicker than one into another.
_UNPACK_HEAD = HEAD.unpack_from
_LARGEST_FRAME_BYTES = h2.DEFAULT_FRAME_BYTES
_DATA = Kind.DATA
_HEADERS = Kind.HEADERS
_KIND_AT = 3
# WINDOW_UPDATE of the connection: its head, and the increment at its end.
_WINDOW = h2.window_update(0, 0)[:HEAD_BYTES]
_INCREMENT_BYTES = 4
_WINDOW_BYTES = HEAD_BYTES + _INCREMENT_BYTES
_WINDOW_UPDATE = Kind.WINDOW_UPDATE
_END_STREAM = Flag.END_STREAM
_PADDED_OR_PRIORITY = Flag.PADDED | Flag.PRIORITY


class ProtocolMismatchError(ConnectionError):
    """What answers speaks another protocol than HTTP/2."""


class Http2Connection(asyncio.Protocol):
    """Streams to one server over one TCP connection, all with the header ``fields``.

    ``ready`` is done when the server's SETTINGS have come: it does speak HTTP/2.
    ``accepts_streams`` turns False when the server is going away or stream numbers run out.
    ``received_ns`` is when the last bytes came.
    """

    def __init__(self, fields: Sequence[Field], *, wants_data: bool = False) -> None:
        self._fields = fields
        self._wants_data = wants_data
        self._head, self._later_head = _heads(RequestBlocks.of(fields))
        self._responses = ResponseBlocks()
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Http2Stream] = {}
        self._blocked: dict[int, Http2Stream] = {}
        self._next_id = 1
        self._send_window = h2.DEFAULT_WINDOW_BYTES
        self._stream_window = h2.DEFAULT_WINDOW_BYTES
        self._frame_bytes = h2.DEFAULT_FRAME_BYTES
        self._unread_bytes = 0
        self._rest = b""
        self._split_block: tuple[int, int, bytes] | None = None
        self._shape: AnswerShape | None = None
        self._shapes_left = 0 if wants_data else _SHAPES_TRIED
        self._handlers: Mapping[int, Callable[[int, int, bytes], None]] = {
            Kind.HEADERS: self._on_headers,
            Kind.CONTINUATION: self._on_continuation,
            Kind.RST_STREAM: self._on_reset,
            Kind.SETTINGS: self._on_settings,
            Kind.PING: self._on_ping,
            Kind.GOAWAY: self._on_goaway,
            Kind.WINDOW_UPDATE: self._on_window_update,
        }
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_open = False
        self.accepts_streams = False
        self.most_streams = _UNLIMITED
        self.received_ns = 0

    def request(self, stream: Http2Stream, message: bytes, *, ends: bool = True) -> None:
        """Open ``stream`` with ``message`` as its content; ``ends`` closes our side of it.

        On a connection that was lost meanwhile the stream fails, but not within this call.
        """
        if not self.is_open:
            self._fail_soon(stream)
            return
        stream_id = self._next_id
        self._next_id = stream_id + 2
        if self._next_id > h2.LARGEST_STREAM_ID:
            self.accepts_streams = False
        stream.id = stream_id
        stream.ends = ends
        stream.received_bytes = 0
        self._streams[stream_id] = stream
        head, self._head = self._head, self._later_head
        number = stream_id.to_bytes(4)
        size = len(message)
        if size <= self._frame_bytes and size <= self._send_window and size <= self._stream_window:
            self._send_window -= size
            stream.send_window = self._stream_window - size
            data_head = size.to_bytes(3) + (_LAST_DATA if ends else _MORE_DATA)
            frames = b"".join((head[0], number, head[1], data_head, number, message))
            self._transport.write(frames)  # type: ignore[union-attr]  # it is open
        else:
            stream.send_window = self._stream_window
            self._write(b"".join((head[0], number, head[1])))
            self._send(stream, memoryview(message))

    def send(self, stream: Http2Stream, message: bytes) -> None:
        """Send more content on a stream whose side of ours is still open; see request."""
        if stream.id not in self._streams:
            self._fail_soon(stream)
            return
        self._send(stream, memoryview(bytes(stream.pending) + message))

    def cancel(self, stream: Http2Stream) -> None:
        """End ``stream`` without a report; what the server still answers to it is ignored."""
        if self._streams.pop(stream.id, None) is not None:
            self._blocked.pop(stream.id, None)
            self._write(h2.reset(stream.id, ErrorCode.CANCEL))

    def abort(self, kind: str = CLOSED, text: str = "the connection was closed") -> None:
        """Drop the connection; its streams fail with ``kind`` and ``text``."""
        self.is_open = False
        self.accepts_streams = False
        if self._transport is not None:
            self._transport.abort()
        if not self.ready.done():
            error = ProtocolMismatchError if kind == MALFORMED else ConnectionError
            self.ready.set_exception(error(text))
        streams = list(self._streams.values())
        self._streams.clear()
        self._blocked.clear()
        for stream in streams:
            stream.on_failure(kind, text)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True
        more = _RECEIVE_WINDOW_BYTES - h2.DEFAULT_WINDOW_BYTES
        self._write(h2.PREFACE + _SETTINGS + h2.window_update(0, more))

    def connection_lost(self, exc: Exception | None) -> None:
        reason = str(exc) if exc else "the server closed the connection before it answered"
        self.abort(CLOSED, reason)

    def data_received(self, data: bytes) -> None:
        self.received_ns = monotonic_ns()
        shape = self._shape
        if shape is not None and not self._rest and not self._blocked:
            # One answer, and what gives back its request's window: all that comes at once where
            # requests are few, and where each step counts most.
            behind = len(data) - shape.size_bytes
            if behind == 0 or (behind == _WINDOW_BYTES and data.startswith(_WINDOW, -behind)):
                number = shape.stream_of(data, 0)
                if number:
                    if behind:
                        self._send_window += int.from_bytes(data[-_INCREMENT_BYTES:])
                    self._end_alike(number, shape)
                    return
        if self._rest:
            data = self._rest + data
        try:
            position = self._read_frames(data)
        except ValueError as error:
            self.abort(MALFORMED, str(error))
            return
        self._rest = data[position:]
        if self._shape is None and self._shapes_left:
            self._shapes_left -= 1
            self._shape = AnswerShape.of(data, self._responses.decode)

    def _read_frames(self, data: bytes) -> int:
        """Handle every whole frame of ``data``; returns where the next one begins."""
        position, end = 0, len(data)
        while position + HEAD_BYTES <= end:
            shape = self._shape
            if (
                shape is not None
                and data[position + _KIND_AT] == _HEADERS
                and position + shape.size_bytes <= end
            ):
                number = shape.stream_of(data, position)
                if number:
                    position += shape.size_bytes
                    self._end_alike(number, shape)
                    continue
                self._shape = None
            high, low, kind, flags, stream_id = _UNPACK_HEAD(data, position)
            start = position + HEAD_BYTES
            length = high << 8 | low
            if length > _LARGEST_FRAME_BYTES:
                raise ValueError(_oversized(data[position:]))
            if start + length > end:
                break
            position = start + length
            if kind == _DATA:
                self._on_data(flags, stream_id, data, start, length)
            elif kind == _WINDOW_UPDATE and not stream_id and not self._blocked:
                self._send_window += int.from_bytes(data[start:position])
            elif handler := self._handlers.get(kind):
                if self._split_block is not None and kind != Kind.CONTINUATION:
                    raise ValueError("a frame between the parts of header fields")
                handler(flags, stream_id, data[start:position])
            if not self.is_open:
                return end
        return position

    def _end_alike(self, stream_id: int, shape: AnswerShape) -> None:
        """An answer of the known ``shape`` came on a stream."""
        self._unread_bytes += shape.content_bytes
        if self._unread_bytes >= _GIVE_BACK_BYTES:
            self._give_back()
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.received_bytes = shape.content_bytes
            self._end(stream, shape.fields)

    def _give_back(self) -> None:
        self._write(h2.window_update(0, self._unread_bytes))
        self._unread_bytes = 0

    def _on_data(self, flags: int, stream_id: int, data: bytes, start: int, length: int) -> None:
        self._unread_bytes += length
        if self._unread_bytes >= _GIVE_BACK_BYTES:
            self._give_back()
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        stream.received_bytes += length
        if self._wants_data:
            content = data[start : start + length]
            stream.on_data(h2.unpadded(flags & Flag.PADDED, content) if flags else content)
            if stream.received_bytes >= _GIVE_BACK_BYTES and stream_id in self._streams:
                self._write(h2.window_update(stream_id, stream.received_bytes))
                stream.received_bytes = 0
        if flags & _END_STREAM and stream_id in self._streams:
            self._end(stream, {})

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & _PADDED_OR_PRIORITY:
            payload = h2.unpadded(flags, payload)
        if not flags & Flag.END_HEADERS:
            self._split_block = (flags, stream_id, payload)
            return
        fields = self._responses.decode(payload)
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if flags & _END_STREAM:
            self._end(stream, fields)
        else:
            stream.on_headers(fields)

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._split_block is None or self._split_block[1] != stream_id:
            raise ValueError("a continuation of no header fields")
        first_flags, _, begun = self._split_block
        if flags & Flag.END_HEADERS:
            self._split_block = None
            whole = first_flags & Flag.END_STREAM | Flag.END_HEADERS
            self._on_headers(whole, stream_id, begun + payload)
        else:
            self._split_block = (first_flags, stream_id, begun + payload)

    def _on_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._blocked.pop(stream_id, None)
            code = int.from_bytes(payload)
            stream.on_failure(RESET, f"the server reset the stream ({h2.error_name(code)})")

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & Flag.ACK:
            return
        values = dict(h2.read_settings(payload))
        self._frame_bytes = values.get(Setting.MAX_FRAME_SIZE, self._frame_bytes)
        self.most_streams = values.get(Setting.MAX_CONCURRENT_STREAMS, self.most_streams)
        table_bytes = values.get(Setting.HEADER_TABLE_SIZE, DEFAULT_TABLE_BYTES)
        if table_bytes < DEFAULT_TABLE_BYTES:
            self._head, self._later_head = _heads(RequestBlocks.of(self._fields, table_bytes))
        if Setting.INITIAL_WINDOW_SIZE in values:
            more = values[Setting.INITIAL_WINDOW_SIZE] - self._stream_window
            self._stream_window += more
            for stream in self._streams.values():
                stream.send_window += more
        self._write(_SETTINGS_ACK)
        if not self.ready.done():
            self.accepts_streams = True
            self.ready.set_result(None)
        self._send_blocked()

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not flags & Flag.ACK:
            self._write(_PING_ACK + payload)

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        self.accepts_streams = False
        last_id = int.from_bytes(payload[:4])
        code, words = int.from_bytes(payload[4:8]), payload[8:].decode("utf-8", "replace")
        reason = f"the server is going away ({words or h2.error_name(code)})"
        for stream in [s for s in self._streams.values() if s.id > last_id]:
            self._streams.pop(stream.id, None)
            self._blocked.pop(stream.id, None)
            stream.on_failure(CLOSED, reason)

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        more = int.from_bytes(payload)
        if stream_id == 0:
            self._send_window += more
        elif stream := self._streams.get(stream_id):
            stream.send_window += more
        if self._blocked:
            self._send_blocked()

    def _end(self, stream: Http2Stream, fields: Fields) -> None:
        del self._streams[stream.id]
        if self._blocked.pop(stream.id, None) is not None:
            # Answered before it was sent: the server wants no more of it.
            self._write(h2.reset(stream.id, ErrorCode.CANCEL))
        stream.on_end(fields)

    def _send(self, stream: Http2Stream, content: memoryview) -> None:
        """Send as much of ``content`` as both windows allow, and keep the rest."""
        frames: list[bytes | memoryview] = []
        while content:
            size = min(len(content), self._frame_bytes, self._send_window, stream.send_window)
            if size <= 0:
                break
            self._send_window -= size
            stream.send_window -= size
            is_last = stream.ends and size == len(content)
            flags = Flag.END_STREAM if is_last else 0
            frames += [h2.frame_head(Kind.DATA, flags, stream.id, size), content[:size]]
            content = content[size:]
        stream.pending = content
        if content:
            self._blocked[stream.id] = stream
        else:
            self._blocked.pop(stream.id, None)
        if frames and self._transport is not None:
            self._transport.writelines(frames)

    def _send_blocked(self) -> None:
        for stream in list(self._blocked.values()):
            self._send(stream, stream.pending)

    def _fail_soon(self, stream: Http2Stream) -> None:
        lost = "the connection was lost before the request was sent"
        asyncio.get_running_loop().call_soon(stream.on_failure, CLOSED, lost)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and self.is_open:
            self._transport.write(data)


def _heads(blocks: RequestBlocks) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """HEADERS frames of the first and of later requests, before and after the stream's number."""
    first, later = (
        (h2.frame_head(Kind.HEADERS, Flag.END_HEADERS, 0, len(block))[:-4], block)
        for block in (blocks.first, blocks.later)
    )
    return first, later


def _oversized(data: bytes) -> str:
    if data.startswith(b"HTTP/"):
        return "the server speaks HTTP/1, not gRPC"
    return "the server sent what is no HTTP/2, or a frame larger than allowed"
