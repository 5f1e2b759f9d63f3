"""A real Triton with a model that takes the same time for every request: an M/D/1 queue.

The model waits instead of computing, so that neighbours on a shared machine hardly change its
capacity, and the rate that holds a limit is known from theory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import exp, factorial
from pathlib import Path

from scipy.optimize import brentq

from trimton.perf.load.arms import Load, ServedArm
from trimton.perf.load.feeds import random_feeds
from trimton.perf.load.requests import prepare_requests
from trimton.perf.targets.endpoint import Endpoint
from trimton.plugin.server.process import TritonServer

NAME = "steady"
MODEL = """
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            end_s = time.perf_counter() + {service_s}
            x = pb_utils.get_input_tensor_by_name(request, "x")
            y = pb_utils.Tensor("y", x.as_numpy())
            responses.append(pb_utils.InferenceResponse([y]))
            time.sleep(max(0.0, end_s - time.perf_counter()))
        return responses
"""
CONFIG = """
backend: "python"
max_batch_size: 0
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
instance_group { count: 1 kind: KIND_CPU }
"""


@dataclass(frozen=True)
class Queue:
    """One server, Poisson arrivals, constant service (M/D/1).

    ``service_s`` is the time for which a request keeps the model busy, ``overhead_s`` what a
    request takes besides, whether or not others wait.
    """

    service_s: float
    overhead_s: float

    def within(self, latency_s: float, rate_rps: float) -> float:
        """The share of requests answered within ``latency_s``.

        Source: A. K. Erlang, 1909; Gross and Harris, Fundamentals of Queueing Theory, M/D/1.
        """
        wait_s = latency_s - self.service_s - self.overhead_s
        if wait_s < 0:
            return 0.0
        total = 0.0
        for served in range(int(wait_s / self.service_s) + 1):
            x = rate_rps * (served * self.service_s - wait_s)
            total += x**served / factorial(served) * exp(-x)
        return (1 - rate_rps * self.service_s) * total

    def peak_rps(self, latency_s: float, share: float) -> float:
        """The highest rate at which ``share`` of the requests is answered within ``latency_s``."""
        highest = 1 / self.service_s
        return float(
            brentq(lambda rate: self.within(latency_s, rate) - share, 1e-3 * highest, highest)
        )


@contextmanager
def steady_server(service_s: float) -> Iterator[ServedArm]:
    """Serve the model over HTTP until the block ends."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "models" / NAME / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(MODEL.format(service_s=service_s))
        (folder.parent / "config.pbtxt").write_text(CONFIG)
        with (
            TritonServer.start(folder.parents[1], log_file=Path(scratch) / "log") as server,
            Endpoint(server.http_url) as endpoint,
        ):
            specs = endpoint.model_metadata(NAME).inputs
            feeds = random_feeds(specs, batch=1, count=4, seed=0)
            requests = prepare_requests(server.http_url, NAME, feeds, specs)
            yield ServedArm(NAME, endpoint, NAME, requests, pid=server.pid)


def measured_queue(arm: ServedArm) -> Queue:
    """The queue of ``arm``, from two closed loops: kept busy, and one request at a time."""
    busy, _ = arm.run(Load(4, 0, 2.0, 0.5))
    alone, _ = arm.run(Load(1, 0, 1.0, 0.2))
    service_s = busy.duration_s / busy.requests
    return Queue(service_s, max(0.0, alone.mean_latency_ms / 1000 - service_s))
