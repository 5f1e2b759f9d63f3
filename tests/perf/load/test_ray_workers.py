"""The worker inside a Ray actor, without Ray; benchmarks/ray_two_nodes.py is with it."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from trimton.core.errors import InfrastructureError, InputError
from trimton.perf.load.arms import Load
from trimton.perf.load.infer_request import infer_request
from trimton.perf.load.protocols import PROTOCOLS
from trimton.perf.load.ray_workers import LoadActor, RayWorkers
from trimton.perf.load.schedules import ConstantRate
from trimton.perf.load.shares import LoadSource, merge_tallies
from trimton.perf.targets.access import Access
from trimton.perf.targets.tensors import TensorSpec


def source_of(address) -> LoadSource:
    access = Access(address)
    spec = TensorSpec("x", "FP32", (None, 1))
    request = infer_request("m", {"x": np.zeros((1, 1), np.float32)}, [spec])
    return LoadSource("http", access, (PROTOCOLS["http"].encode(request, access, False),))


def test_actors_warm_up_wait_and_begin_when_they_are_told(scripts):
    server = scripts.always("ok")
    actors = [LoadActor(worker, 2) for worker in range(2)]
    with ThreadPoolExecutor() as pool:
        for number in (1, 2):
            work = [
                pool.submit(actor.carry, number, source_of(server.address), Load(2, 0, 0.1, 0.05))
                for actor in actors
            ]
            for actor in actors:
                actor.wait_until_ready(number)
            assert not any(task.done() for task in work)
            # A late word about an earlier load starts nothing.
            actors[0].start(number - 1)
            before = len(server.requests)
            for actor in actors:
                actor.start(number)
            merged = merge_tallies([task.result(timeout=10) for task in work])
            assert merged.all_answers == len(server.requests) - before > 0


def test_actors_tell_their_progress_and_end_a_schedule_when_they_are_told(scripts):
    server = scripts.always("ok")
    actor = LoadActor(0, 1)
    load = Load(0, 0, 600.0, 0.0, ConstantRate(100.0))
    with ThreadPoolExecutor() as pool:
        work = pool.submit(actor.carry, 1, source_of(server.address), load)
        actor.wait_until_ready(1)
        actor.start(1)
        deadline = time.monotonic() + 10
        while actor.progress().requests < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        actor.stop(1)
        tally = work.result(timeout=10)
    assert 5 <= tally.requests == len(server.requests) < 60_000


def test_an_actor_that_cannot_warm_up_is_ready_with_its_error(scripts):
    server = scripts.always("ok")
    server.stop()
    actor = LoadActor(0, 1)
    with ThreadPoolExecutor() as pool:
        work = pool.submit(actor.carry, 1, source_of(server.address), Load(1, 0, 0.1, 0.0))
        pool.submit(actor.wait_until_ready, 1).result(timeout=10)
        assert isinstance(work.result(timeout=10), InfrastructureError)


def test_without_ray_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'trimton\[ray\]'"):
        RayWorkers(2)
