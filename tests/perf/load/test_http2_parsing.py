"""What the server sends is read the same however it is cut, and garbage ends in a failure."""

from __future__ import annotations

import asyncio
from struct import pack

import hpack
from hypothesis import given, settings
from hypothesis import strategies as st

from trimton.perf.load.grpc_connection import GrpcConnection
from trimton.perf.load.grpc_pool import Http2Pool, request_fields
from trimton.perf.load.http2 import Http2Connection
from trimton.perf.targets.address import Address

REQUEST = b"\0\0\0\0\x03abc"
ADDRESS = Address("h", 1)


class Transport:
    """Keeps what was written; stands for a socket."""

    def __init__(self) -> None:
        self.written = b""
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.is_aborted = True


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return pack(">L", len(payload))[1:] + pack(">BBL", kind, flags, stream_id) + payload


def answers(count: int) -> bytes:
    """Everything that a server sends for ``count`` calls, with pings and windows in between."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    data = frame(4, 0, 0, b"")
    for number in range(count):
        stream_id = 1 + 2 * number
        data += frame(1, 4, stream_id, encoder.encode([(":status", "200")]))
        data += frame(8, 0, 0, pack(">L", 8)) + frame(6, 0, 0, bytes(8))
        data += frame(0, 0, stream_id, bytes(100))
        data += frame(1, 5, stream_id, encoder.encode([("grpc-status", "0")]))
    return data


def outcomes_of(chunks: list[bytes], calls: int) -> tuple[int, int, Transport]:
    """Answers and failures of ``calls`` that are in flight while ``chunks`` arrive."""

    async def run() -> tuple[int, int, Transport]:
        transport, answered, failed = Transport(), [], []
        fields = request_fields(ADDRESS, "/x", is_secure=False)
        http2 = Http2Connection(fields)
        http2.connection_made(transport)
        pool = Http2Pool(ADDRESS, "/x")
        for _ in range(calls):
            connection = GrpcConnection(
                pool, http2, lambda c, at_ns: answered.append(c), lambda c, *why: failed.append(why)
            )
            connection.send(REQUEST)
        for chunk in chunks:
            http2.data_received(chunk)
            if transport.is_aborted:
                break
        if not transport.is_aborted:
            http2.connection_lost(None)
        if http2.ready.done():
            http2.ready.exception()
        return len(answered), len(failed), transport

    return asyncio.run(run())


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_answers_are_the_same_however_the_bytes_are_cut(sizes):
    data, chunks, position = answers(5), [], 0
    for size in sizes:
        chunks.append(data[position : position + size])
        position += size
    chunks.append(data[position:])
    answered, failed, transport = outcomes_of(chunks, 5)
    assert (answered, failed) == (5, 0)
    assert transport.written.count(frame(6, 1, 0, bytes(8))) == 5


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=10))
@settings(max_examples=200, deadline=None)
def test_garbage_fails_every_call_once_and_raises_nothing(chunks):
    answered, failed, _ = outcomes_of(chunks, 3)
    assert (answered, failed) == (0, 3)


@given(st.integers(0, 5 * 140), st.binary(min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_a_damaged_stream_of_answers_never_loses_a_call(position, damage):
    data = answers(5)
    damaged = data[:position] + damage + data[position + len(damage) :]
    answered, failed, _ = outcomes_of([damaged], 5)
    assert answered + failed == 5
