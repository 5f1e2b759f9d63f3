"""The open loop keeps its schedule and charges waiting to whoever causes it."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from trimton.core.errors import InfrastructureError
from trimton.perf.load.arms import Load, ServedArm, window_record
from trimton.perf.load.http_connection import HttpConnector
from trimton.perf.load.open_loop import run_open_loop
from trimton.perf.load.patience import Patience
from trimton.perf.load.requests import prepare_requests
from trimton.perf.load.schedules import ConstantRate
from trimton.perf.load.span import Span
from trimton.perf.targets.endpoint import Endpoint
from trimton.perf.targets.tensors import TensorSpec

SPEC = TensorSpec("x", "FP32", (None, 4))
MS = 1_000_000


def load(server, instants_ns, **options) -> Span:
    feeds = [{"x": np.full((1, 4), i, np.float32)} for i in range(3)]
    requests = prepare_requests(str(server.address), "m", feeds, [SPEC])
    return run_open_loop(HttpConnector(server.address), requests, instants_ns, **options)


def evenly(rate_rps: float, duration_s: float):
    return ConstantRate(rate_rps).instants_ns(duration_s, 0)


def test_every_scheduled_request_has_exactly_one_outcome(scripts):
    server = scripts.always("ok")
    span = load(server, evenly(500, 0.4))
    assert span.requests == len(server.requests) == 200
    assert not span.errors
    assert span.service.count == span.lateness.count == 200


def test_requests_leave_at_their_instants_not_before(scripts):
    server = scripts.always("ok")
    span = load(server, evenly(100, 0.5))
    # From the first instant to the last answer: 49 gaps of 10 ms lie between.
    assert span.duration_s >= 0.49
    assert span.lateness.total_ns >= 0


def test_slow_answers_do_not_delay_later_requests(scripts):
    server = scripts.start(lambda number: scripts.slowly(0.1))
    span = load(server, evenly(100, 0.3))
    assert span.requests == 30
    # About ten are under way at any time; a closed loop would have had one.
    assert server.most_in_flight >= 5
    assert span.connections >= server.most_in_flight


def test_a_stall_is_charged_to_all_who_would_have_waited(scripts):
    """One server that handles one request at a time and stalls for 0.3 s once."""
    lock = threading.Lock()

    def behave(number):
        def react(connection):
            with lock:
                if number == 20:
                    time.sleep(0.3)
            return scripts.slowly(0)(connection)

        return react

    span = load(scripts.start(behave), evenly(100, 0.6))
    assert span.requests == 60
    latencies_ms, counts = span.histogram.buckets()
    # 30 requests were due during the stall; those of its first 0.2 s waited 0.1 s or more.
    assert counts[latencies_ms >= 100].sum() >= 19


def test_waiting_for_a_free_connection_is_latency_but_not_service_time(scripts):
    server = scripts.start(lambda number: scripts.slowly(0.02))
    span = load(server, np.zeros(10, np.int64), connections_max=1)
    assert server.most_in_flight == 1
    assert span.late_sends >= 9
    # The k-th of ten waits for k others, 20 ms each.
    assert span.latencies.total_ns >= sum(20 * MS * k for k in range(1, 11))
    assert span.lateness.total_ns >= sum(20 * MS * k for k in range(10))
    assert span.service.total_ns < span.latencies.total_ns


def test_a_client_that_is_kept_from_its_work_says_so(scripts):
    server = scripts.always("ok")
    blocked = []

    def on_request(started_ns, finished_ns):
        if not blocked:
            blocked.append(True)
            time.sleep(0.1)

    span = load(server, evenly(200, 0.5), on_request=on_request)
    assert span.requests == 100
    # Some twenty instants passed while the client slept; a slow machine can only add to them.
    assert span.client_late >= 15


@pytest.mark.parametrize("reaction", ["half_then_close", "no_answer_then_close", "not_http"])
def test_failures_count_once_and_the_schedule_goes_on(scripts, reaction):
    server = scripts.one_in(10, reaction)
    span = load(server, evenly(500, 0.4))
    assert span.requests == 180
    assert span.failures == 20
    assert len(server.requests) == 200


def test_one_in_a_thousand_failing_is_counted_exactly(scripts):
    server = scripts.one_in(1000, scripts.answer(500, {"error": "on purpose"}))
    span = load(server, evenly(2500, 1.2))
    assert (span.requests, dict(span.errors)) == (2997, {"HTTP 500": 3})
    assert span.error_example == "HTTP 500: on purpose"


def test_a_black_holed_connection_times_out_and_the_rest_is_served(scripts):
    server = scripts.start(
        lambda number: scripts.reaction("silent") if number == 7 else scripts.slowly(0)
    )
    span = load(server, evenly(200, 0.5), patience=Patience(request_timeout_s=0.2))
    assert (span.requests, dict(span.errors)) == (99, {"timed out": 1})


def test_a_restart_in_the_middle_costs_only_what_was_under_way(scripts):
    revived = []

    def restart() -> None:
        server.stop()
        time.sleep(0.15)
        revived.append(scripts.start(lambda number: scripts.slowly(0), server.address.port))

    def behave(number):
        if number == 50:
            threading.Thread(target=restart).start()
        return scripts.slowly(0)

    server = scripts.start(behave)
    span = load(server, evenly(200, 1.0))
    assert span.requests + span.failures == 200
    assert set(span.errors) <= {"connection refused", "connection closed"}
    assert span.errors["connection refused"] >= 1
    assert len(revived[0].requests) > 100


def test_a_server_that_stays_away_ends_the_load_with_one_sentence(scripts):
    def behave(number):
        if number == 20:
            threading.Thread(target=server.stop).start()
        return scripts.slowly(0)

    server = scripts.start(behave)
    with pytest.raises(InfrastructureError, match="went away during the load"):
        load(server, evenly(200, 30), patience=Patience(server_gone_s=0.3))


def test_no_listener_is_one_sentence(scripts):
    server = scripts.always("ok")
    server.stop()
    with pytest.raises(InfrastructureError, match="does not accept connections"):
        load(server, evenly(10, 0.1))


def test_enough_ends_the_schedule_early_and_counts_what_was_sent(scripts):
    server = scripts.always("ok")
    span = load(server, evenly(200, 30), enough=lambda span: span.outcomes >= 20)
    assert 20 <= span.requests == len(server.requests) < 200
    assert span.is_closed


def test_what_is_answered_after_the_schedule_is_no_throughput(scripts):
    """A server that takes 40 ms for each of 20 requests which all are due within 0.2 s."""
    server = scripts.start(lambda number: scripts.slowly(0.04))
    endpoint = Endpoint(server.address)
    requests = prepare_requests(
        str(server.address), "m", [{"x": np.zeros((1, 4), np.float32)}], [SPEC]
    )
    arm = ServedArm("v", endpoint, "m", requests, batch=2, connections_max=1)
    asked = Load(0, 0, 0.2, 0.0, ConstantRate(100.0), latency_limit_ms=200)
    tally, _ = arm.run(asked)
    assert tally.requests == 20
    assert tally.in_window <= 5
    # Each waits for those before it: some 16 of them for longer than the limit.
    assert 10 <= tally.over_limit == tally.progress.over_limit < 20
    window = window_record(tally, arm, asked, where="here", client_cpu_us_per_request=1.0)
    assert window.throughput_rps == pytest.approx(2 * tally.in_window / 0.2)
    assert window.requests == 20
    assert window.duration_s == pytest.approx(tally.duration_s)
    assert window.duration_s >= 20 * 0.04


def test_nothing_is_in_flight_between_warm_up_and_window(scripts):
    server = scripts.start(lambda number: scripts.slowly(0.002))
    seen = []

    def between() -> None:
        deadline = time.monotonic() + 5
        while server.in_flight and time.monotonic() < deadline:
            time.sleep(0.001)
        seen.append((server.in_flight, len(server.requests)))

    span = load(server, evenly(200, 0.2), warmup_ns=evenly(200, 0.1), before_window=between)
    assert seen == [(0, 20)]
    assert span.requests == 40
