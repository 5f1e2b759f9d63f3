"""Header blocks of requests and responses that cost nothing per request.

All requests of a connection carry the same header fields. The first block puts them into the
peer's dynamic table, every later block is a few indices and always the same bytes. Responses
come without a dynamic table (we announce a size of 0), so equal blocks mean equal fields and
each different block is decoded once.

Source: RFC 7541 (HPACK), sections 5 and 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import hpack

DEFAULT_TABLE_BYTES = 4096
# Responses with ever new texts (error messages) must not fill the memory.
_CACHED_BLOCKS = 256

_ENTRY_OVERHEAD_BYTES = 32
_FIRST_DYNAMIC_INDEX = 62
_LITERAL_INDEXED = 0x40
_LITERAL = 0x00
_INDEXED = 0x80
_TABLE_SIZE_ZERO = b"\x20"

Field = tuple[str, str]
Fields = Mapping[str, str]


@dataclass(frozen=True)
class RequestBlocks:
    """The block of a connection's first request, and that of all others."""

    first: bytes
    later: bytes

    @classmethod
    def of(cls, fields: Sequence[Field], table_bytes: int = DEFAULT_TABLE_BYTES) -> RequestBlocks:
        """Blocks for a peer whose dynamic table holds ``table_bytes``.

        A table that is smaller than the default or than the fields is emptied and not used.
        """
        needed = sum(len(n.encode()) + len(v.encode()) + _ENTRY_OVERHEAD_BYTES for n, v in fields)
        if table_bytes < DEFAULT_TABLE_BYTES or needed > table_bytes:
            plain = b"".join(_literal(_LITERAL, name, value) for name, value in fields)
            return cls(_TABLE_SIZE_ZERO + plain, plain)
        newest = _FIRST_DYNAMIC_INDEX + len(fields) - 1
        return cls(
            b"".join(_literal(_LITERAL_INDEXED, name, value) for name, value in fields),
            b"".join(_integer(_INDEXED, 7, newest - index) for index in range(len(fields))),
        )


class ResponseBlocks:
    """Decodes the header blocks of one connection's responses."""

    def __init__(self) -> None:
        self._known: dict[bytes, Fields] = {}
        self._decoder = hpack.Decoder()
        self._decoder.max_allowed_table_size = 0
        self._decoder.header_table_size = 0

    def decode(self, block: bytes) -> Fields:
        """The fields of ``block``; ValueError if it is broken."""
        fields = self._known.get(block)
        if fields is None:
            try:
                fields = {str(name): str(value) for name, value in self._decoder.decode(block)}
            except hpack.HPACKError as error:
                raise ValueError(f"broken header fields ({error})") from error
            if len(self._known) >= _CACHED_BLOCKS:
                self._known.clear()
            self._known[block] = fields
        return fields


def _literal(form: int, name: str, value: str) -> bytes:
    return bytes([form]) + _string(name) + _string(value)


def _string(text: str) -> bytes:
    content = text.encode()
    return _integer(0, 7, len(content)) + content


def _integer(form: int, prefix_bits: int, value: int) -> bytes:
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([form | value])
    encoded = bytearray([form | limit])
    value -= limit
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
