"""The shape of a whole answer, to know the next one that differs only in its content.

A server answers one unary call after the other with the same bytes but for the stream's number
and the content: HEADERS, one DATA frame, HEADERS with the status. Once such an answer was read
frame by frame, the next is known by comparing its bytes, in a quarter of the steps. That is worth
having because a client that waits finds its code gone from the processor's caches: a step costs
several times what it costs in a tight loop.

Source: RFC 9113, section 4.1 (frames) and 8.1 (the order of frames in an answer).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from trimton.perf.load.hpack_blocks import Fields
from trimton.perf.load.http2_frames import HEAD, HEAD_BYTES, Flag, Kind

# A frame's head without the number of its stream: length, type and flags.
_HEAD_REST_BYTES = HEAD_BYTES - 4
# Type and flags of its frames.
_ANSWER = (
    (Kind.HEADERS, Flag.END_HEADERS),
    (Kind.DATA, 0),
    (Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM),
)


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """What answers of ``size_bytes`` with ``content_bytes`` of content have in common.

    ``unpack`` gives, from where an answer may begin: the part before the first number of a stream,
    that number, the part before the second, and so on, and the rest; ``parts`` are those of this
    shape, in the same order. ``fields`` are those of the last block.
    """

    size_bytes: int
    content_bytes: int
    unpack: Callable[[bytes, int], tuple[Any, ...]] = field(repr=False)
    parts: tuple[bytes, bytes, bytes, bytes]
    fields: Fields

    def stream_of(self, data: bytes, position: int) -> int:
        """The stream of the answer at ``position`` if it has this shape, else 0.

        There must be ``size_bytes`` from there on; 0 is no stream of a request.
        """
        head, number, middle, second, end_head, third, end = self.unpack(data, position)
        if (head, middle, end_head, end) == self.parts and number == second == third:
            return int(number)
        return 0

    @classmethod
    def of(cls, data: bytes, decode: Callable[[bytes], Fields]) -> AnswerShape | None:
        """The shape of what ``data`` begins with; None where that is no whole answer of status 200.

        ``decode`` gives the fields of a block.
        """
        frames = list(islice(_frames(data), len(_ANSWER)))
        if tuple((kind, flags) for kind, flags, _, _ in frames) != _ANSWER:
            return None
        streams = {stream_id for _, _, stream_id, _ in frames}
        block, content, last_block = (payload for _, _, _, payload in frames)
        if len(streams) > 1 or decode(block).get(":status") != "200":
            return None
        packed = struct.Struct(
            f">{_HEAD_REST_BYTES}sI{len(block) + _HEAD_REST_BYTES}sI{len(content)}x"
            f"{_HEAD_REST_BYTES}sI{len(last_block)}s"
        )
        head, _, middle, _, end_head, _, end = packed.unpack_from(data)
        return cls(
            size_bytes=packed.size,
            content_bytes=len(content),
            unpack=packed.unpack_from,
            parts=(head, middle, end_head, end),
            fields=decode(last_block),
        )


def _frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, stream and payload of each whole frame."""
    position = 0
    while position + HEAD_BYTES <= len(data):
        high, low, kind, flags, stream_id = HEAD.unpack_from(data, position)
        start = position + HEAD_BYTES
        position = start + (high << 8 | low)
        if position <= len(data):
            yield kind, flags, stream_id, data[start:position]
