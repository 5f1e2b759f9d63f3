"""Processes that carry a load together, and what happens when one of them does not."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from trimton.core.errors import InfrastructureError
from trimton.perf.load.arms import Load
from trimton.perf.load.crew_arm import CrewArm, Crews
from trimton.perf.load.feeds import random_feeds
from trimton.perf.load.infer_request import infer_request
from trimton.perf.load.peak_search import Objective, rate_trials
from trimton.perf.load.protocols import PROTOCOLS, prepare_load
from trimton.perf.load.schedules import ConstantRate
from trimton.perf.load.shares import LoadSource, merge_tallies
from trimton.perf.load.workers import WorkerProcesses
from trimton.perf.measure.histogram import LatencyHistogram
from trimton.perf.targets.access import Access
from trimton.perf.targets.address import Address
from trimton.perf.targets.endpoint import Endpoint
from trimton.perf.targets.tensors import TensorSpec

SPEC = TensorSpec("x", "FP32", (None, 4))


@pytest.fixture(scope="module")
def crew():
    """Two processes for all tests of this file."""
    with WorkerProcesses(2) as started:
        yield started


def source_of(address: Address, **options) -> LoadSource:
    access = Access(address)
    request = infer_request("m", {"x": np.zeros((1, 4), np.float32)}, [SPEC])
    return LoadSource(
        "http", access, (PROTOCOLS["http"].encode(request, access, False),), **options
    )


def test_all_requests_are_counted_once_and_nothing_is_in_flight_before_the_window(crew, scripts):
    server = scripts.start(lambda number: scripts.slowly(0.002))
    seen = []

    def between() -> None:
        deadline = time.monotonic() + 5
        while server.in_flight and time.monotonic() < deadline:
            time.sleep(0.001)
        seen.append((server.in_flight, len(server.requests)))

    parts = crew.run(source_of(server.address), Load(5, 0, 0.3, 0.1), before_window=between)
    [(in_flight, warm_up_requests)] = seen
    assert in_flight == 0
    assert warm_up_requests > 0
    assert len(parts) == 2
    assert all(part.requests > 0 for part in parts)
    merged = merge_tallies(parts)
    assert merged.all_answers == len(server.requests) - warm_up_requests
    assert server.most_in_flight == 5


def test_a_schedule_is_kept_by_all_together(crew, scripts):
    server = scripts.always("ok")
    load = Load(0, 0, 0.5, 0.0, ConstantRate(100.0))
    merged = merge_tallies(crew.run(source_of(server.address), load))
    assert merged.requests == len(server.requests) == 50


def test_a_schedule_ends_early_when_all_have_come_far_enough_together(crew, scripts):
    server = scripts.always("ok")
    load = Load(0, 0, 600.0, 0.0, ConstantRate(200.0), latency_limit_ms=0.0)
    seen = []

    def enough(progress) -> bool:
        seen.append(progress)
        return progress.outcomes >= 40

    merged = merge_tallies(crew.run(source_of(server.address), load, enough=enough))
    assert 40 <= merged.requests == len(server.requests) < 120_000
    assert merged.over_limit == merged.requests
    assert [p.outcomes for p in seen] == sorted(p.outcomes for p in seen)
    assert seen[-1].over_limit == seen[-1].requests
    # The word may reach a worker that has just ended; the next load does not hear it.
    short = Load(0, 0, 0.2, 0.0, ConstantRate(100.0))
    again = merge_tallies(crew.run(source_of(server.address), short, enough=lambda progress: True))
    assert again.requests <= 20
    whole = merge_tallies(crew.run(source_of(server.address), short))
    assert whole.requests == 20


def test_a_peak_search_counts_what_breaks_the_limit_in_every_worker(scripts):
    server = scripts.start(lambda number: scripts.slowly(0.02))
    source = source_of(server.address)
    with Crews(2) as crews, Endpoint(server.address) as endpoint:
        arm = CrewArm("v", endpoint, "m", source.requests, source=source, crews=crews)
        attempt = rate_trials(arm, Objective(5.0, 0.5), warmup_s=0, seed=0)
        broken = attempt(100.0, 0.2)
        attempt = rate_trials(arm, Objective(60_000.0, 0.5), warmup_s=0, seed=0)
        held = attempt(100.0, 0.2)
    assert (broken.holds, broken.over_limit) == (False, broken.requests)
    assert (held.holds, held.over_limit) == (True, 0)
    assert held.requests > 0


def test_what_a_worker_raises_arrives_here_and_the_crew_works_again(crew, scripts):
    gone = scripts.always("ok")
    gone.stop()
    with pytest.raises(InfrastructureError, match=f"{gone.address} does not accept connections"):
        crew.run(source_of(gone.address), Load(2, 0, 0.1, 0.0))
    server = scripts.always("ok")
    parts = crew.run(source_of(server.address), Load(2, 0, 0.1, 0.0))
    assert merge_tallies(parts).requests > 0


def test_a_worker_that_is_killed_is_one_sentence(crew, scripts):
    server = scripts.always("ok")

    def kill_one() -> None:
        process = crew._processes[0]
        os.kill(process.pid, signal.SIGKILL)
        process.join()

    with pytest.raises(InfrastructureError, match="ended in the middle of its work"):
        crew.run(source_of(server.address), Load(2, 0, 30.0, 0.0), before_window=kill_one)
    assert crew._processes == []


def test_a_worker_that_is_killed_under_load_is_one_sentence_too(crew, scripts):
    def behave(number):
        if number == 20:
            os.kill(crew._processes[1].pid, signal.SIGKILL)
        return scripts.slowly(0.001)

    server = scripts.start(behave)
    with pytest.raises(InfrastructureError, match="ended in the middle of its work"):
        crew.run(source_of(server.address), Load(2, 0, 30.0, 0.0))


def test_a_local_server_that_ends_ends_the_load(crew, scripts):
    server = scripts.always("silent")
    with pytest.raises(InfrastructureError, match="local server ended"):
        crew.run(source_of(server.address), Load(2, 0, 30.0, 0.0), is_alive=lambda: False)


def test_workers_end_with_their_crew(scripts):
    server = scripts.always("ok")
    with WorkerProcesses(1) as alone:
        alone.run(source_of(server.address), Load(1, 0, 0.05, 0.0))
        [process] = alone._processes
        assert process.is_alive()
    assert not process.is_alive()


@pytest.mark.server
def test_a_window_in_which_the_client_was_the_limit_is_measured_again_by_more(
    shared_triton, monkeypatch
):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    # Any use of a core counts as the limit here, and any goal needs more workers.
    monkeypatch.setattr("trimton.perf.load.crew_arm.CORE_LIMIT", 0.0)
    monkeypatch.setattr("trimton.perf.load.crew_arm.CORE_GOAL", 1e-6)
    access = Access(Address.parse(shared_triton.server.http_url))
    way = PROTOCOLS["http"]
    with way.endpoint(access) as endpoint, Crews() as crews:
        specs = endpoint.model_metadata("probe").inputs
        feeds = random_feeds(specs, batch=1, count=2, seed=0)
        load = prepare_load(way, access, "probe", feeds, specs)
        arm = CrewArm(
            "v",
            endpoint,
            "probe",
            load.requests,
            connector=load.connector,
            source=LoadSource("http", access, load.requests),
            crews=crews,
        )
        assert arm.measure(Load(2, 0, 0.1, 0.0)).workers == 2
        # One request in flight cannot be shared, whatever was learnt.
        assert arm.measure(Load(1, 0, 0.1, 0.0)).workers == 1


@pytest.mark.server
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_arm_of_workers_counts_what_the_server_counts(shared_triton, protocol):
    url = {"http": shared_triton.server.http_url, "grpc": shared_triton.server.grpc_url}[protocol]
    way, access = PROTOCOLS[protocol], Access(Address.parse(url))
    with way.endpoint(access) as endpoint, Crews(2) as crews:
        specs = endpoint.model_metadata("probe").inputs
        feeds = random_feeds(specs, batch=1, count=4, seed=0)
        load = prepare_load(way, access, "probe", feeds, specs)
        arm = CrewArm(
            "v",
            endpoint,
            "probe",
            load.requests,
            connector=load.connector,
            pid=shared_triton.server.pid,
            source=LoadSource(protocol, access, load.requests),
            crews=crews,
        )
        window = arm.measure(Load(4, 0, 0.3, 0.1))
    assert window.workers == 2
    assert window.errors == {}
    assert window.server.failures == 0
    # The server also counts what lies outside the windows of the two workers.
    assert window.requests <= window.server.requests <= window.requests + 50
    assert len(LatencyHistogram.decode(window.latency_histogram)) == window.requests
    assert window.client_cpu_us_per_request > 0
