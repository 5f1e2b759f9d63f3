"""An answer that is known by its shape is counted as one that was read frame by frame."""

from __future__ import annotations

import asyncio
from struct import pack
from typing import Any

import hpack
from hypothesis import given, settings
from hypothesis import strategies as st

from trimton.perf.load.answer_shape import AnswerShape
from trimton.perf.load.grpc_connection import GrpcConnection
from trimton.perf.load.grpc_pool import Http2Pool, request_fields
from trimton.perf.load.hpack_blocks import ResponseBlocks
from trimton.perf.load.http2 import Http2Connection
from trimton.perf.targets.address import Address

ADDRESS = Address("h", 1)
WINDOW_UPDATE = 8


class Transport:
    """Keeps nothing; stands for a socket."""

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        pass


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return pack(">L", len(payload))[1:] + pack(">BBL", kind, flags, stream_id) + payload


def block(*fields: tuple[str, str]) -> bytes:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    encoder.encode([])  # says once that the table is empty
    return bytes(encoder.encode(fields))


def answer(stream_id: int, status: str, content_bytes: int, updates: int = 0) -> bytes:
    head = block((":status", "200"), ("content-type", "application/grpc"))
    return (
        frame(1, 4, stream_id, head)
        + frame(0, 0, stream_id, bytes([stream_id % 256]) * content_bytes)
        + frame(1, 5, stream_id, block(("grpc-status", status)))
        + frame(WINDOW_UPDATE, 0, 0, pack(">L", 8)) * updates
    )


answers = st.lists(
    st.tuples(st.sampled_from("00003"), st.sampled_from([5, 5, 5, 90]), st.integers(0, 2)),
    min_size=1,
    max_size=30,
)


def outcomes(chunks: list[bytes], calls: int) -> list[Any]:
    """How each of ``calls`` ended, in order of their ends: its number, and why if it failed."""

    async def run() -> list[Any]:
        ended: list[Any] = []
        http2 = Http2Connection(request_fields(ADDRESS, "/x", is_secure=False))
        http2.connection_made(Transport())
        pool = Http2Pool(ADDRESS, "/x")
        for _ in range(calls):
            connection = GrpcConnection(
                pool,
                http2,
                lambda call, at_ns: ended.append((call.id, call.received_bytes)),
                lambda call, *why: ended.append((call.id, why)),
            )
            connection.send(b"\0\0\0\0\x03abc")
        http2.data_received(frame(4, 0, 0, b""))
        for chunk in chunks:
            http2.data_received(chunk)
        http2.connection_lost(None)
        return ended

    return asyncio.run(run())


@given(answers, st.lists(st.integers(1, 400), max_size=20))
@settings(max_examples=150, deadline=None)
def test_calls_end_as_they_do_when_every_byte_comes_alone(sent, cuts):
    data = b"".join(
        answer(1 + 2 * number, status, size, updates)
        for number, (status, size, updates) in enumerate(sent)
    )
    chunks, position = [], 0
    for cut in cuts:
        chunks.append(data[position : position + cut])
        position += cut
    chunks.append(data[position:])
    byte_by_byte = [data[i : i + 1] for i in range(len(data))]
    assert outcomes(chunks, len(sent)) == outcomes(byte_by_byte, len(sent))


def test_a_shape_is_that_of_the_first_answer_and_names_what_may_differ():
    shape = AnswerShape.of(answer(7, "0", 5, updates=1) + b"more", ResponseBlocks().decode)
    assert shape is not None
    assert shape.size_bytes == len(answer(7, "0", 5))
    assert shape.content_bytes == 5
    assert shape.fields["grpc-status"] == "0"
    head, number, middle, second, end_head, third, end = shape.unpack(answer(9, "0", 5), 0)
    assert (number, second, third) == (9, 9, 9)
    assert (head, middle, end_head, end) == shape.parts


def test_what_is_no_whole_answer_of_one_stream_has_no_shape():
    decode = ResponseBlocks().decode
    whole = answer(7, "0", 5)
    assert AnswerShape.of(whole[:-1], decode) is None
    assert AnswerShape.of(frame(6, 0, 0, bytes(8)) + whole, decode) is None
    mixed = answer(7, "0", 5)[: len(answer(7, "0", 5)) // 2] + answer(9, "0", 5)
    assert AnswerShape.of(mixed, decode) is None
    refused = (
        frame(1, 4, 7, block((":status", "503"))) + whole[whole.index(frame(0, 0, 7, b"\7" * 5)) :]
    )
    assert AnswerShape.of(refused, decode) is None
