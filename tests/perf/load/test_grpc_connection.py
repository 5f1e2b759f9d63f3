"""The gRPC client against peers that do everything HTTP/2 allows, and some things it does not."""

from __future__ import annotations

import asyncio
import threading
import time
from struct import pack

import numpy as np
import pytest
import uvloop

from trimton.core.errors import InfrastructureError
from trimton.perf.load.closed_loop import Patience, run_closed_loop
from trimton.perf.load.grpc_connection import GrpcConnector
from trimton.perf.load.http2 import Http2Connection
from trimton.perf.load.http2_frames import LARGEST_STREAM_ID
from trimton.perf.load.protocols import PROTOCOLS, prepare_load
from trimton.perf.targets.access import Access
from trimton.perf.targets.tensors import TensorSpec

CONTINUATION, DATA, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE = (
    9,
    0,
    7,
    1,
    6,
    3,
    4,
    8,
)
END_STREAM, END_HEADERS, PADDED = 0x1, 0x4, 0x8
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 3, 4, 5
REQUEST = b"\0\0\0\0\x03abc"
OK_FIELDS = [(":status", "200"), ("content-type", "application/grpc")]


def load(peer, concurrency=1, window_s=0.15, requests=(REQUEST,), connector=None, **options):
    return run_closed_loop(
        connector or GrpcConnector(peer.address),
        requests,
        concurrency,
        window_s=window_s,
        warmup_s=0,
        **options,
    )


class Outcomes:
    """What the connections of ``exchange`` reported."""

    def __init__(self) -> None:
        self.answers = 0
        self.failures: list[tuple[str, str]] = []
        self.latencies_ns: list[int] = []
        self.reusable: list[bool] = []


def exchange(peer, requests=(REQUEST,), *, timeout_s=5.0, give_up_after_s=None, connector=None):
    """Send each of ``requests`` at once on a connection of its own; returns the outcomes."""
    outcomes = Outcomes()

    async def run() -> None:
        left = len(requests)
        done = asyncio.get_running_loop().create_future()

        def finished(connection) -> None:
            nonlocal left
            left -= 1
            outcomes.reusable.append(connection.reusable)
            if left == 0:
                done.set_result(None)

        def on_answer(connection, finished_ns) -> None:
            outcomes.answers += 1
            outcomes.latencies_ns.append(finished_ns - connection.sent_ns)
            finished(connection)

        def on_failure(connection, kind, text) -> None:
            outcomes.failures.append((kind, text))
            finished(connection)

        made = connector or GrpcConnector(peer.address)
        connections = [await made.open(on_answer, on_failure) for _ in requests]
        for connection, request in zip(connections, requests, strict=True):
            connection.send(request)
        if give_up_after_s is not None:
            await asyncio.sleep(give_up_after_s)
            for connection in connections:
                if connection.in_flight:
                    connection.give_up()
        await asyncio.wait_for(done, timeout_s)
        for connection in connections:
            connection.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    return outcomes


def test_a_call_names_method_service_and_content(peers):
    peer = peers.answering()
    assert exchange(peer).answers == 1
    [call] = peer.calls
    assert call.content == REQUEST
    assert call.fields[":path"] == "/inference.GRPCInferenceService/ModelInfer"
    assert call.fields[":method"] == "POST"
    assert call.fields[":scheme"] == "http"
    assert call.fields[":authority"] == str(peer.address)
    assert call.fields["te"] == "trailers"
    assert call.fields["content-type"] == "application/grpc"


def test_metadata_goes_with_every_call_in_lower_case(peers):
    peer = peers.answering()
    connector = GrpcConnector(peer.address, metadata=[("Authorization", "Bearer t")])
    load(peer, connector=connector)
    assert len(peer.calls) > 10
    assert {call.fields["authorization"] for call in peer.calls} == {"Bearer t"}


def test_after_the_first_call_header_fields_are_a_few_bytes_that_mean_the_same(peers):
    peer = peers.answering()
    window = load(peer)
    assert window.requests > 10
    first, *others = peer.calls
    assert {len(call.header_block) for call in others} == {7}
    assert all(call.fields == first.fields for call in others)


@pytest.mark.parametrize("table_bytes", [0, 100, 4095])
def test_a_peer_with_a_smaller_header_table_gets_fields_that_need_none(peers, table_bytes):
    peer = peers.answering({HEADER_TABLE_SIZE: table_bytes})
    assert load(peer).requests > 10
    assert all(call.fields[":method"] == "POST" for call in peer.calls)
    # 0x20: the table is emptied, as its owner must be told once.
    assert [call.header_block[0] == 0x20 for call in peer.calls[:3]] == [True, False, False]


def test_we_announce_no_header_table_no_push_and_a_large_window(peers):
    peer = peers.answering()
    exchange(peer)
    assert peer.announced == {1: 0, 2: 0, 4: 2**31 - 1}
    assert peer.window_updates[0] == (0, 2**31 - 1 - 65_535)
    assert peer.acknowledged_settings == 1


def test_streams_share_a_tcp_connection_up_to_the_limit(peers):
    peer = peers.answering()
    connector = GrpcConnector(peer.address, streams_per_tcp_connection=4)
    assert exchange(peer, [REQUEST] * 10, connector=connector).answers == 10
    assert peer.connections == 3


@pytest.mark.parametrize(("value_count", "connections"), [(10, 1), (10_000, 3)])
def test_large_requests_get_a_tcp_connection_each(peers, value_count, connections):
    peer = peers.answering()
    spec = TensorSpec("x", "FP32", (None, value_count))
    feed = {"x": np.zeros((1, value_count), np.float32)}
    load = prepare_load(PROTOCOLS["grpc"], Access(peer.address), "m", [feed], [spec])
    assert exchange(peer, load.requests * 3, connector=load.connector).answers == 3
    assert peer.connections == connections


def test_a_peers_own_limit_of_streams_is_kept(peers):
    peer = peers.answering({MAX_CONCURRENT_STREAMS: 2})
    assert exchange(peer, [REQUEST] * 4).answers == 4
    assert peer.connections == 2


def test_each_connection_has_one_request_in_flight(peers):
    open_calls, most = set(), []
    lock = threading.Lock()

    def slowly(link, call) -> None:
        with lock:
            open_calls.add(call.number)
            most.append(len(open_calls))
        time.sleep(0.003)
        with lock:
            open_calls.discard(call.number)
        link.answer(call.stream_id)

    peer = peers.start(slowly)
    window = load(peer, 7, connector=GrpcConnector(peer.address, streams_per_tcp_connection=1))
    assert window.requests > 7
    assert max(most) == 7


@pytest.mark.parametrize(
    ("settings", "largest_frame"),
    [
        ({}, 16_384),
        ({MAX_FRAME_SIZE: 100_000}, 65_535),
        ({INITIAL_WINDOW_SIZE: 1000}, 1000),
        ({INITIAL_WINDOW_SIZE: 2**31 - 1}, 16_384),
    ],
)
def test_a_large_message_keeps_to_the_frames_and_windows_of_the_peer(
    peers, settings, largest_frame
):
    message = bytes(range(256)) * 1000
    peer = peers.answering(settings)
    assert exchange(peer, [message] * 2).answers == 2
    for call in peer.calls:
        assert call.content == message
        assert max(call.frame_sizes) == largest_frame


def test_nothing_is_sent_beyond_the_window_until_the_peer_grants_more(peers):
    message = b"x" * 100_000
    peer = peers.answering(grants_window=False)
    outcomes = exchange(peer, [message], give_up_after_s=0.2)
    assert [kind for kind, _ in outcomes.failures] == ["timed out"]
    assert len(peer.calls[0].content) == 65_535


def test_a_window_that_grows_by_settings_lets_the_rest_go(peers):
    def behave(link, call) -> None:
        link.answer(call.stream_id)

    peer = peers.start(behave, {INITIAL_WINDOW_SIZE: 10}, grants_window=False)
    released = threading.Event()
    original = peer._react

    def react(link, calls, kind, *frame) -> None:
        original(link, calls, kind, *frame)
        if kind == DATA and not released.is_set():
            released.set()
            link.frame(SETTINGS, 0, 0, pack(">HL", INITIAL_WINDOW_SIZE, 50_000))

    peer._react = react
    message = b"y" * 20_000
    assert exchange(peer, [message]).answers == 1
    assert peer.calls[0].frame_sizes == [10, 16_384, 20_000 - 10 - 16_384]


def test_pings_are_answered_with_their_content(peers):
    def behave(link, call) -> None:
        link.frame(PING, 0, 0, b"12345678")
        link.answer(call.stream_id)

    peer = peers.start(behave)
    assert load(peer).requests > 0
    assert set(peer.acknowledged_pings) == {b"12345678"}


def byte_by_byte(link, call) -> None:
    sent = []
    original, link.socket = link.socket, type("Recorder", (), {"sendall": sent.append})()
    link.answer(call.stream_id)
    link.socket = original
    for byte in b"".join(sent):
        original.sendall(bytes([byte]))


def padded(link, call) -> None:
    link.headers(call.stream_id, OK_FIELDS, ends=False)
    link.frame(DATA, PADDED, call.stream_id, b"\x03" + b"\0\0\0\0\x01x" + bytes(3))
    block = link.encoder.encode([("grpc-status", "0")])
    flags = END_STREAM | END_HEADERS | PADDED
    link.frame(HEADERS, flags, call.stream_id, b"\x02" + block + bytes(2))


def continued(link, call) -> None:
    link.headers(call.stream_id, OK_FIELDS, ends=False)
    link.frame(DATA, 0, call.stream_id, b"\0\0\0\0\x01x")
    block = link.encoder.encode([("grpc-status", "0"), ("x-long", "y" * 1000)])
    link.frame(HEADERS, END_STREAM, call.stream_id, block[:10])
    link.frame(CONTINUATION, 0, call.stream_id, block[10:500])
    link.frame(CONTINUATION, END_HEADERS, call.stream_id, block[500:])


def with_unknown_frames(link, call) -> None:
    link.frame(0xBB, 0x7F, 0, b"greased")
    link.answer(call.stream_id)


@pytest.mark.parametrize("behaviour", [byte_by_byte, padded, continued, with_unknown_frames])
def test_whole_answers_count_however_they_are_framed(peers, behaviour):
    window = load(peers.start(behaviour))
    assert window.requests > 0
    assert not window.errors


def test_a_refusal_of_trailers_only_keeps_the_connection_and_its_words(peers):
    def behave(link, call) -> None:
        if call.number % 4 == 3:
            link.refuse(call.stream_id, 3, "unexpected shape for %27x%27")
        else:
            link.answer(call.stream_id)

    peer = peers.start(behave)
    window = load(peer)
    assert window.error_example == "gRPC INVALID_ARGUMENT: unexpected shape for 'x'"
    assert set(window.errors) == {"gRPC INVALID_ARGUMENT"}
    assert abs(window.errors.total() - (window.requests + window.errors.total()) / 4) <= 1
    assert peer.connections == 1


def test_a_refusal_before_the_content_is_through_ends_the_upload(peers):
    peer = peers.answering(grants_window=False)
    original = peer._react

    def react(link, calls, kind, *frame) -> None:
        first = kind == DATA and not next(iter(calls.values())).frame_sizes
        original(link, calls, kind, *frame)
        if first:
            link.refuse(1, 8, "message too large")

    peer._react = react
    outcomes = exchange(peer, [b"z" * 200_000])
    assert outcomes.failures == [("gRPC RESOURCE_EXHAUSTED", "message too large")]
    assert outcomes.reusable == [True]


def reset_stream(link, call) -> None:
    link.frame(RST_STREAM, 0, call.stream_id, pack(">L", 7))


def close_connection(link, call) -> None:
    raise OSError


def broken_settings(link, call) -> None:
    link.frame(SETTINGS, 0, 0, b"12345")


def broken_padding(link, call) -> None:
    link.frame(HEADERS, END_HEADERS | PADDED, call.stream_id, b"\xffabc")


def oversized(link, call) -> None:
    link.frame(DATA, 0, call.stream_id, bytes(16_385))


def broken_fields(link, call) -> None:
    link.frame(HEADERS, END_HEADERS | END_STREAM, call.stream_id, b"\xff\xff\xff\xff")


def interrupted_fields(link, call) -> None:
    link.frame(HEADERS, 0, call.stream_id, b"\x88")
    link.frame(PING, 0, 0, bytes(8))


def without_status(link, call) -> None:
    link.headers(call.stream_id, OK_FIELDS, ends=False)
    link.frame(DATA, END_STREAM, call.stream_id, b"\0\0\0\0\x01x")


def without_message(link, call) -> None:
    link.headers(call.stream_id, [*OK_FIELDS, ("grpc-status", "0")], ends=True)


def proxy_error(link, call) -> None:
    link.headers(call.stream_id, [(":status", "503")], ends=False)
    link.frame(DATA, END_STREAM, call.stream_id, b"no upstream")


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (reset_stream, "stream reset"),
        (close_connection, "connection closed"),
        (broken_settings, "malformed response"),
        (broken_padding, "malformed response"),
        (oversized, "malformed response"),
        (broken_fields, "malformed response"),
        (interrupted_fields, "malformed response"),
        (without_status, "malformed response"),
        (without_message, "malformed response"),
        (proxy_error, "HTTP 503"),
    ],
)
def test_a_failure_is_counted_by_kind_and_the_load_goes_on(peers, behaviour, kind):
    def behave(link, call) -> None:
        if call.number % 10 == 9:
            behaviour(link, call)
        else:
            link.answer(call.stream_id)

    window = load(peers.start(behave), window_s=0.3)
    assert set(window.errors) == {kind}
    outcomes = window.requests + window.errors.total()
    assert outcomes > 30
    # One in ten over consecutive requests: exact up to where the window opens and closes.
    assert abs(window.errors.total() - outcomes / 10) <= 1


def test_a_connection_that_breaks_fails_all_its_streams(peers):
    def behave(link, call) -> None:
        if call.number == 3:
            link.socket.close()

    outcomes = exchange(peers.start(behave), [REQUEST] * 4)
    assert [kind for kind, _ in outcomes.failures] == ["connection closed"] * 4


def test_a_server_that_goes_away_finishes_what_it_took_and_is_left(peers):
    def behave(link, call) -> None:
        if call.number == 5:
            link.frame(GOAWAY, 0, 0, pack(">LL", call.stream_id, 0))
        link.answer(call.stream_id)

    peer = peers.start(behave)
    window = load(peer)
    assert not window.errors
    assert window.requests > 20
    assert peer.connections == 2


def test_what_a_server_that_goes_away_did_not_take_fails(peers):
    def behave(link, call) -> None:
        if call.number == 1:
            link.frame(GOAWAY, 0, 0, pack(">LL", 1, 11) + b"too_many_pings")
            link.answer(1)

    outcomes = exchange(peers.start(behave), [REQUEST, REQUEST])
    assert outcomes.answers == 1
    assert outcomes.failures == [("connection closed", "the server is going away (too_many_pings)")]
    assert not any(outcomes.reusable)


def test_a_connection_whose_stream_numbers_run_out_is_replaced(peers, monkeypatch):
    original = Http2Connection.__init__

    def near_the_end(self, *arguments, **options) -> None:
        original(self, *arguments, **options)
        self._next_id = LARGEST_STREAM_ID - 4

    monkeypatch.setattr(Http2Connection, "__init__", near_the_end)
    peer = peers.answering()
    window = load(peer)
    assert window.requests > 10
    assert not window.errors
    assert {call.stream_id for call in peer.calls} == {2**31 - 5, 2**31 - 3, 2**31 - 1}
    assert peer.connections >= len(peer.calls) / 3


def test_a_request_that_takes_too_long_is_cancelled_alone_while_others_are_answered(peers):
    def behave(link, call) -> None:
        if call.number == 0:
            return
        time.sleep(0.02)
        link.answer(call.stream_id)

    peer = peers.start(behave)
    window = load(peer, 2, window_s=0.4, patience=Patience(request_timeout_s=0.1))
    assert window.requests > 3
    assert not set(window.errors) - {"timed out"}
    assert peer.resets == [1]
    assert peer.connections == 1


def test_a_silent_connection_is_given_up_with_all_its_streams(peers):
    peer = peers.start(lambda link, call: None)
    outcomes = exchange(peer, [REQUEST] * 3, give_up_after_s=0.1)
    assert [kind for kind, _ in outcomes.failures] == ["timed out"] * 3
    assert not any(outcomes.reusable)


def test_what_is_sent_after_the_connection_was_lost_fails_and_does_not_hang(peers):
    peer = peers.answering()
    failures = []

    async def run() -> None:
        done = asyncio.get_running_loop().create_future()

        def on_failure(connection, kind, text) -> None:
            failures.append(kind)
            done.set_result(None)

        connection = await GrpcConnector(peer.address).open(lambda *_: None, on_failure)
        peer.stop()
        deadline = time.monotonic() + 5
        while connection.reusable and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        assert not connection.reusable
        connection.send(REQUEST)
        assert not failures
        await asyncio.wait_for(done, 5)

    asyncio.run(run())
    assert failures == ["connection closed"]


def test_a_server_that_dies_ends_the_load_with_one_sentence(peers):
    def behave(link, call) -> None:
        if call.number == 50:
            threading.Thread(target=peer.stop).start()
        link.answer(call.stream_id)

    peer = peers.start(behave)
    with pytest.raises(InfrastructureError, match="went away during the load"):
        load(peer, 3, window_s=30, patience=Patience(server_gone_s=0.3))


def test_a_restarted_server_is_loaded_again_and_the_gap_is_counted(peers):
    revived = []

    def restart() -> None:
        peer.stop()
        time.sleep(0.1)
        revived.append(peers.answering(port=peer.address.port))

    def behave(link, call) -> None:
        if call.number == 50:
            threading.Thread(target=restart).start()
        time.sleep(0.001)
        link.answer(call.stream_id)

    peer = peers.start(behave)
    window = load(peer, 2, window_s=1.0)
    assert window.errors["connection refused"] >= 1
    assert len(revived[0].calls) > 0
    assert window.all_answers >= len(revived[0].calls)


def test_an_http_port_is_one_sentence(peers):
    peer = peers.start(lambda link, call: None, greeting=b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(InfrastructureError, match=r"does not speak gRPC .* give the gRPC port"):
        load(peer)


def test_no_listener_is_one_sentence_with_the_address(peers):
    peer = peers.answering()
    peer.stop()
    with pytest.raises(InfrastructureError, match=f"{peer.address} does not accept connections"):
        load(peer)
