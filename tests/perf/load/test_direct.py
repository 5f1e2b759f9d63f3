"""One request in flight: answers are read in place, and nothing spins or starves meanwhile."""

from __future__ import annotations

import numpy as np

from trimton.perf.load.closed_loop import Patience, run_closed_loop
from trimton.perf.load.direct import DirectTransport
from trimton.perf.load.requests import prepare_requests
from trimton.perf.targets.tensors import TensorSpec

SPEC = TensorSpec("x", "FP32", (None, 4))


def load(server, **options):
    requests = prepare_requests(
        str(server.address), "m", [{"x": np.zeros((1, 4), np.float32)}], [SPEC]
    )
    return run_closed_loop(server.address, requests, 1, **options)


def counted_reads(monkeypatch):
    reads = []
    read_once = DirectTransport._read_once

    def counted(transport):
        reads.append(transport)
        read_once(transport)

    monkeypatch.setattr(DirectTransport, "_read_once", counted)
    return reads


def test_a_read_waits_in_the_kernel_also_after_the_connection_was_idle(scripts, monkeypatch):
    """libuv leaves a socket that it polled in non-blocking mode: reads would spin from then on."""
    server = scripts.start(lambda number: scripts.slowly(0.3))
    reads = counted_reads(monkeypatch)
    span = load(server, window_s=1.0, warmup_s=0.2, request_count=3)
    assert span.requests == 3
    # Each read blocks for up to 50 ms of the 300; a spinning one would come by the thousands.
    assert len(reads) < 100


def test_every_answer_of_a_quick_server_is_read_in_place(scripts, monkeypatch):
    reads = counted_reads(monkeypatch)
    span = load(scripts.always("ok"), window_s=1.0, warmup_s=0.0, request_count=200)
    assert span.requests == 200
    assert len(reads) >= 199


def test_time_limits_hold_while_a_read_waits(scripts):
    window = load(
        scripts.always("silent"),
        window_s=0.5,
        warmup_s=0.0,
        patience=Patience(request_timeout_s=0.1),
    )
    assert window.errors["timed out"] >= 2
