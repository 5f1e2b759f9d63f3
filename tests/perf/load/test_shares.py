"""A load split over workers asks for the same, and merged counts are the counts of all."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest

from trimton.core.errors import InputError
from trimton.perf.load.arms import Load
from trimton.perf.load.crew_arm import Crews, workers_wanted
from trimton.perf.load.infer_request import infer_request
from trimton.perf.load.protocols import PROTOCOLS
from trimton.perf.load.schedules import ConstantRate
from trimton.perf.load.sequences import FIRST_ID, encode_sequence
from trimton.perf.load.shares import LoadSource, merge_tallies, run_share, share_of
from trimton.perf.load.span import Span
from trimton.perf.load.window import Window
from trimton.perf.results import LoadWindow
from trimton.perf.targets.access import Access
from trimton.perf.targets.address import Address
from trimton.perf.targets.tensors import TensorSpec

SECOND_NS = 1_000_000_000
SPEC = TensorSpec("x", "FP32", (None, 1))


def encoded(*values: float) -> tuple[bytes, ...]:
    access = Access(Address("h", 1))
    requests = [infer_request("m", {"x": np.array([[v]], np.float32)}, [SPEC]) for v in values]
    return tuple(PROTOCOLS["http"].encode(request, access, False) for request in requests)


@pytest.mark.parametrize(("concurrency", "workers"), [(1, 1), (7, 3), (8, 4), (5, 5)])
def test_shares_of_a_closed_loop_add_up_and_differ_by_one_at_most(concurrency, workers):
    load = Load(concurrency, 0, 1.0, 0.5)
    shares = [share_of(load, worker, workers).concurrency for worker in range(workers)]
    assert sum(shares) == concurrency
    assert max(shares) - min(shares) <= 1
    assert min(shares) >= 1


def test_a_number_of_requests_is_shared_too():
    load = Load(4, 0, 1.0, 0.5, request_count=10)
    assert [share_of(load, worker, 3).request_count for worker in range(3)] == [4, 3, 3]


def test_more_workers_than_requests_in_flight_are_refused():
    with pytest.raises(InputError, match="3 workers need at least 3 requests in flight"):
        share_of(Load(2, 0, 1.0, 0.5), 0, 3)


def test_fewer_requests_than_workers_are_refused():
    with pytest.raises(InputError, match="4 workers need at least 4 requests"):
        share_of(Load(8, 0, 1.0, 0.5, request_count=3), 0, 4)


def test_the_instants_of_a_schedule_are_dealt_out_whole(scripts):
    server = scripts.always("ok")
    source = LoadSource("http", Access(server.address), encoded(0, 1, 2))
    load = Load(0, 0, 0.1, 0.0, ConstantRate(70.0))
    parts = [run_share(source, load, worker, 3, lambda: None) for worker in range(3)]
    assert [part.requests for part in parts] == [3, 2, 2]
    assert len(server.requests) == 7
    merged = merge_tallies(parts)
    assert merged.requests == merged.lateness.count == merged.service.count == 7


def test_a_worker_without_an_instant_of_its_own_counts_nothing(scripts):
    server = scripts.always("ok")
    source = LoadSource("http", Access(server.address), encoded(0))
    load = Load(0, 0, 0.1, 0.0, ConstantRate(10.0))
    waited = []
    parts = [run_share(source, load, worker, 2, lambda: waited.append(1)) for worker in range(2)]
    assert [part.requests for part in parts] == [1, 0]
    assert len(waited) == 2
    assert merge_tallies(parts).requests == 1


def test_workers_begin_at_different_requests():
    source = LoadSource("http", Access(Address("h", 1)), (b"a", b"b", b"c", b"d"))
    assert source.prepare(0, 2).requests == (b"a", b"b", b"c", b"d")
    assert source.prepare(1, 2).requests == (b"c", b"d", b"a", b"b")


def test_a_source_travels_and_numbers_its_sequences_by_worker(scripts):
    server = scripts.always("ok")
    access = Access(server.address)
    request = infer_request("m", {"x": np.zeros((1, 1), np.float32)}, [SPEC])
    steps = encode_sequence([request], lambda r: PROTOCOLS["http"].encode(r, access, False))
    source = pickle.loads(pickle.dumps(LoadSource("http", access, sequences=(steps,))))
    for worker in range(2):
        run_share(source, Load(2, 0, 0.05, 0.0), worker, 2, lambda: None)
    numbers = [int(r.partition(b'"sequence_id":')[2][:10]) for r in server.requests]
    middle = FIRST_ID + 4_500_000_000
    sides = [number >= middle for number in numbers]
    assert [side for side, _ in itertools.groupby(sides)] == [False, True]


def window(latencies_ms, *, opened_s: float, seconds: float, errors=()) -> Window:
    """A closed window whose successes took ``latencies_ms``, evenly spread over ``seconds``."""
    made = Window(round(seconds * SECOND_NS), settle=0)
    opened_ns = round(opened_s * SECOND_NS)
    made.answered(opened_ns - 1000, opened_ns)
    for kind in errors:
        made.failed(opened_ns + 1, kind, "text of the error")
    step = seconds * SECOND_NS / len(latencies_ms)
    for index, latency_ms in enumerate(latencies_ms):
        ended = opened_ns + round((index + 1) * step)
        made.answered(ended - round(latency_ms * 1e6), ended)
    assert made.is_closed
    return made


def test_merged_windows_have_the_sum_of_the_rates_and_all_latencies():
    one = window([10.0] * 100, opened_s=1.0, seconds=1.0, errors=["HTTP 500"])
    two = window([30.0] * 300, opened_s=1.1, seconds=1.5, errors=["HTTP 500", "timed out"])
    merged = merge_tallies([one, two])
    assert merged.requests == 400
    assert merged.all_answers == 402
    assert merged.requests / merged.duration_s == pytest.approx(100 + 200)
    assert merged.mean_latency_ms == pytest.approx(25.0)
    assert merged.errors == {"HTTP 500": 2, "timed out": 1}
    assert merged.error_example == "HTTP 500: text of the error"
    assert len(merged.histogram) == 400
    assert merged.histogram.percentile_ms(0.5) == pytest.approx(30.0, rel=1e-3)
    assert merged.cpu_ns == one.cpu_ns + two.cpu_ns


def test_windows_without_a_success_merge_to_none():
    failing = Window(1000, settle=0)
    failing.answered(0, 1)
    failing.failed(2000, "timed out", "")
    merged = merge_tallies([failing, failing])
    assert merged.requests == 0
    assert merged.errors == {"timed out": 2}
    assert merged.duration_s > 0


def test_merged_spans_last_from_the_first_start_to_the_last_end():
    spans = []
    for started_ns, ended_ns in ((100, 5_000), (200, 9_000)):
        span = Span(2)
        span.open(started_ns)
        span.noticed(2_000_000)
        span.sent(2_000_000)
        span.sent(10)
        span.answered(started_ns, ended_ns - 1, started_ns + 5)
        span.answered(started_ns, ended_ns, started_ns + 5)
        span.connections = 3
        spans.append(span)
    merged = merge_tallies(spans)
    assert (merged.opened_ns, merged.closed_ns) == (100, 9_000)
    assert (merged.requests, merged.late_sends, merged.client_late) == (4, 2, 2)
    assert merged.lateness.max_ns == 2_000_000
    assert merged.connections == 6


@pytest.mark.parametrize(
    "tally", [window([1.0, 5.0], opened_s=1.0, seconds=1.0, errors=["x"]), Span(3)]
)
def test_counts_travel_between_processes_unchanged(tally):
    back = pickle.loads(pickle.dumps(tally))
    assert back.requests == tally.requests
    assert back.errors == tally.errors
    assert back.mean_latency_ms == tally.mean_latency_ms
    assert back.histogram.encode() == tally.histogram.encode()


def measured(client_cpu_us: float, rate: float, *, workers=1, concurrency=16, arrivals=None):
    return LoadWindow(
        variant="v",
        concurrency=concurrency,
        batch=1,
        round=0,
        duration_s=2.0,
        requests=round(2 * rate),
        errors={},
        throughput_rps=rate,
        latency_histogram="",
        latency_mean_ms=1.0,
        client_cpu_us_per_request=client_cpu_us,
        arrivals=arrivals,
        workers=workers,
    )


@pytest.mark.parametrize(
    ("window", "cores", "wanted"),
    [
        (measured(10, 70_000), 8, 1),  # 70 % of a core
        (measured(10, 90_000), 8, 2),  # 90 %: two with 45 % each
        (measured(10, 90_000), 1, 1),  # there is no other core
        (measured(10, 90_000, concurrency=1), 8, 1),  # one request in flight cannot be shared
        (measured(10, 90_000, concurrency=0, arrivals="poisson"), 8, 2),  # a schedule can
        (measured(10, 150_000, workers=2), 8, 2),  # 75 % each
        (measured(10, 190_000, workers=2), 8, 4),  # 95 % each
        (measured(10, 190_000, workers=2, concurrency=3), 8, 3),
    ],
)
def test_workers_are_called_only_where_the_client_is_the_limit(window, cores, wanted):
    assert workers_wanted(window, cores) == wanted


def test_a_given_number_of_workers_stays():
    crews = Crews(2)
    assert not crews.learn(measured(10, 300_000))
    assert crews.size_for(Load(16, 0, 1.0, 0.0)) == 2
    assert crews.size_for(Load(0, 0, 1.0, 0.0, ConstantRate(10.0))) == 2


def test_no_worker_is_without_a_request():
    crews = Crews(4)
    assert crews.size_for(Load(3, 0, 1.0, 0.0)) == 3
    assert crews.size_for(Load(8, 0, 1.0, 0.0, request_count=2)) == 2


def test_workers_that_were_found_to_be_needed_stay_for_the_next_windows(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    crews = Crews()
    assert crews.size_for(Load(16, 0, 1.0, 0.0)) == 1
    assert crews.learn(measured(10, 90_000))
    assert crews.size_for(Load(16, 0, 1.0, 0.0)) == 2
    assert crews.size_for(Load(1, 0, 1.0, 0.0)) == 1
    assert not crews.learn(measured(10, 90_000, workers=2))
