"""The closed loop against servers that misbehave in every way a server can."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from trimton.core.errors import InfrastructureError
from trimton.perf.load.closed_loop import Patience, run_closed_loop
from trimton.perf.load.requests import prepare_requests
from trimton.perf.load.window import Window
from trimton.perf.targets.tensors import TensorSpec

SPEC = TensorSpec("x", "FP32", (None, 4))


def load(server, concurrency=1, window_s=0.2, warmup_s=0.0, **options) -> Window:
    feeds = [{"x": np.full((1, 4), i, np.float32)} for i in range(3)]
    requests = prepare_requests(str(server.address), "m", feeds, [SPEC])
    return run_closed_loop(
        server.address, requests, concurrency, window_s=window_s, warmup_s=warmup_s, **options
    )


@pytest.mark.parametrize("reaction", ["ok", "byte_by_byte", "chunked", "announced_close"])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_whole_answers_count_however_they_are_framed(scripts, reaction, concurrency):
    server = scripts.always(reaction)
    window = load(server, concurrency)
    assert window.requests > 0
    assert not window.errors
    assert window.all_answers == len(server.requests)


@pytest.mark.parametrize(
    ("reaction", "kind"),
    [
        ("half_then_close", "connection closed"),
        ("half_then_reset", "connection closed"),
        ("no_answer_then_close", "connection closed"),
        ("answer_twice", "malformed response"),
        ("not_http", "malformed response"),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_failure_is_counted_by_kind_and_the_load_goes_on(scripts, reaction, kind, concurrency):
    window = load(scripts.one_in(10, reaction), concurrency)
    outcomes = window.requests + window.errors[kind]
    assert set(window.errors) == {kind}
    assert outcomes > 30
    # One in ten over consecutive requests: exact up to where the window opens and closes.
    assert abs(window.errors[kind] - outcomes / 10) <= concurrency


def test_an_error_answer_keeps_the_connection_and_its_text(scripts):
    server = scripts.one_in(4, scripts.answer(400, {"error": "unexpected shape for 'x'"}))
    window = load(server)
    assert window.errors["HTTP 400"] > 0
    assert window.error_example == "HTTP 400: unexpected shape for 'x'"


def test_an_error_without_json_is_told_as_it_is(scripts):
    server = scripts.one_in(4, scripts.answer(503, "overloaded"))
    assert load(server).error_example == 'HTTP 503: "overloaded"'


def test_a_silent_server_times_out_and_the_load_goes_on(scripts):
    server = scripts.one_in(20, "silent")
    window = load(server, window_s=0.6, patience=Patience(request_timeout_s=0.1))
    assert window.errors["timed out"] >= 1
    assert window.requests > window.errors["timed out"]


def test_each_connection_has_one_request_in_flight(scripts):
    server = scripts.start(lambda number: scripts.slowly(0.005))
    load(server, concurrency=7)
    assert server.most_in_flight == 7


def test_requests_are_sent_in_turn(scripts):
    server = scripts.always("ok")
    load(server, window_s=0.05)
    bodies = [request.rpartition(b"}")[2] for request in server.requests[:6]]
    expected = [np.full(4, i, np.float32).tobytes() for i in (0, 1, 2, 0, 1, 2)]
    assert bodies == expected


def test_nothing_is_in_flight_between_warm_up_and_window(scripts):
    server = scripts.start(lambda number: scripts.slowly(0.002))
    seen = []

    def between() -> None:
        # The server counts a request as answered a moment after the client has the answer.
        deadline = time.monotonic() + 5
        while server.in_flight and time.monotonic() < deadline:
            time.sleep(0.001)
        seen.append((server.in_flight, len(server.requests)))

    window = load(server, concurrency=4, warmup_s=0.05, before_window=between)
    [(in_flight, warm_up_requests)] = seen
    assert in_flight == 0
    assert warm_up_requests > 0
    assert window.all_answers == len(server.requests) - warm_up_requests


def test_warm_up_does_not_count(scripts):
    server = scripts.start(
        lambda number: scripts.answer(500, {"error": "cold"}) if number < 5 else scripts.slowly(0)
    )
    assert not load(server, warmup_s=0.1).errors


def at_request(scripts, number, action):
    """A sound server; ``action`` runs beside it when its ``number``-th request comes."""

    def behave(current):
        if current == number:
            threading.Thread(target=action).start()
        return scripts.slowly(0.001)

    return scripts.start(behave)


def test_a_server_that_drops_every_connection_is_not_called_in_a_tight_loop(scripts):
    server = scripts.always("no_answer_then_close")
    window = load(server, concurrency=2, window_s=0.3)
    assert window.requests == 0
    # One call of each connection every 20 ms at most, over the settling and the window.
    assert 2 <= len(server.requests) <= 2 * (0.3 + window.duration_s) / 0.02


def test_a_server_that_dies_ends_the_load_with_one_sentence(scripts):
    server = at_request(scripts, 50, lambda: server.stop())
    with pytest.raises(InfrastructureError, match="went away during the load"):
        load(server, concurrency=3, window_s=30, patience=Patience(server_gone_s=0.3))


def test_a_dead_local_process_ends_the_load_at_once(scripts):
    server = scripts.always("silent")
    with pytest.raises(InfrastructureError, match="went away"):
        load(server, window_s=30, patience=Patience(is_alive=lambda: False))


def test_a_restarted_server_is_loaded_again_and_the_gap_is_counted(scripts):
    revived = []

    def restart() -> None:
        server.stop()
        time.sleep(0.1)
        revived.append(scripts.start(lambda number: scripts.slowly(0.001), server.address.port))

    server = at_request(scripts, 50, restart)
    window = load(server, concurrency=2, window_s=1.0)
    assert window.errors["connection refused"] >= 1
    assert len(revived[0].requests) > 0
    assert window.all_answers >= len(revived[0].requests)


def test_no_listener_is_one_sentence_with_the_address(scripts):
    server = scripts.always("ok")
    server.stop()
    with pytest.raises(InfrastructureError, match=f"{server.address} does not accept connections"):
        load(server)


def test_latency_is_what_the_server_took(scripts):
    server = scripts.start(lambda number: scripts.slowly(0.02))
    window = load(server, window_s=0.5)
    assert window.mean_latency_ms >= 20
    # In a closed loop with one connection the latencies fill the window.
    assert window.requests * window.mean_latency_ms / 1000 <= window.duration_s * 1.001


def test_the_event_loop_policy_of_the_program_stays(scripts):
    before = asyncio.get_event_loop_policy()
    load(scripts.always("ok"), window_s=0.05)
    assert asyncio.get_event_loop_policy() is before
    assert "uvloop" not in type(before).__module__


def test_a_given_number_of_requests_is_sent_exactly_and_all_of_them_count(scripts):
    server = scripts.one_in(10, scripts.answer(500, {"error": "on purpose"}))
    span = load(server, concurrency=4, request_count=200)
    assert len(server.requests) == 200
    assert (span.requests, dict(span.errors)) == (180, {"HTTP 500": 20})
    # No idle time: one request after the other fills the span of each connection.
    assert span.latencies.total_ns / 4 <= span.duration_s * 1e9


def test_fewer_requests_than_connections_end_too(scripts):
    server = scripts.always("ok")
    assert load(server, concurrency=8, request_count=3).requests == 3
    assert len(server.requests) == 3


def test_a_server_restarted_late_in_a_load_has_its_full_grace(scripts):
    """The grace runs from the loss, not from when the connections were made."""
    revived = []

    def restart() -> None:
        server.stop()
        time.sleep(0.2)
        revived.append(scripts.start(lambda number: scripts.slowly(0.001), server.address.port))

    server = scripts.start(lambda number: scripts.slowly(0.01))
    threading.Timer(0.8, restart).start()
    window = load(server, window_s=1.5, patience=Patience(server_gone_s=0.6))
    assert len(revived[0].requests) > 0
    assert window.errors["connection refused"] >= 1
