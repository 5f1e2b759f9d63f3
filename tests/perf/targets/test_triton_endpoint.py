"""The client against a real Triton: same numbers out, same counts on both sides."""

from __future__ import annotations

import numpy as np
import pytest
from models import echo_model
from onnx import TensorProto

from trimton.core.errors import InfrastructureError, InputError
from trimton.perf.load.arms import Load, ServedArm
from trimton.perf.load.closed_loop import run_closed_loop
from trimton.perf.load.feeds import random_feeds
from trimton.perf.load.requests import prepare_requests
from trimton.perf.measure.server_statistics import statistics_between
from trimton.perf.targets.endpoint import Endpoint

pytestmark = pytest.mark.server

TYPES = {
    "FP32": TensorProto.FLOAT,
    "FP16": TensorProto.FLOAT16,
    "FP64": TensorProto.DOUBLE,
    "INT8": TensorProto.INT8,
    "UINT8": TensorProto.UINT8,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "BOOL": TensorProto.BOOL,
    "BYTES": TensorProto.STRING,
}
BATCHED = """
backend: "onnxruntime"
max_batch_size: 8
dynamic_batching { max_queue_delay_microseconds: 100 }
"""


@pytest.fixture(scope="module")
def endpoint(shared_triton):
    shared_triton.write("client_echo", echo_model(TYPES), BATCHED)
    shared_triton.server.control.load("client_echo")
    with Endpoint(shared_triton.server.http_url) as opened:
        yield opened
    shared_triton.server.control.unload("client_echo")


def test_every_type_comes_back_as_it_was_sent(endpoint):
    metadata = endpoint.model_metadata("client_echo")
    assert {spec.datatype for spec in metadata.inputs} == set(TYPES)
    [feed] = random_feeds(metadata.inputs, batch=5, count=1, seed=3)
    feed["in_BYTES"][0, 0] = "ümlaut " * 50
    outputs = endpoint.infer("client_echo", feed, metadata.inputs)
    for name in TYPES:
        sent, back = feed[f"in_{name}"], outputs[f"out_{name}"]
        if name == "BYTES":
            sent = np.vectorize(lambda text: text.encode(), otypes=[object])(sent)
        assert back.dtype == sent.dtype
        np.testing.assert_array_equal(back, sent)


def test_the_server_says_who_it_is_and_how_it_serves(endpoint):
    metadata = endpoint.server_metadata()
    assert metadata.name == "triton"
    assert metadata.version.startswith("2.")
    assert endpoint.is_ready()
    assert endpoint.model_config("client_echo")["max_batch_size"] == 8


def test_an_unknown_model_is_wrong_input_in_the_servers_words(endpoint):
    with pytest.raises(InputError, match="unknown model: 'nobody'"):
        endpoint.model_metadata("nobody")


def test_client_and_server_count_the_same_requests(endpoint):
    specs = endpoint.model_metadata("client_echo").inputs
    feeds = random_feeds(specs, batch=2, count=4, seed=0)
    requests = prepare_requests(str(endpoint.address), "client_echo", feeds, specs)
    before = endpoint.model_statistics("client_echo")
    window = run_closed_loop(endpoint.address, requests, concurrency=4, window_s=0.3, warmup_s=0)
    counted = statistics_between(before, endpoint.model_statistics("client_echo"))
    assert counted.requests == window.all_answers
    assert counted.inferences == 2 * window.all_answers
    assert counted.failures == 0
    assert not window.errors


def test_a_window_tells_what_the_server_did(endpoint, shared_triton):
    specs = endpoint.model_metadata("client_echo").inputs
    requests = prepare_requests(
        str(endpoint.address),
        "client_echo",
        random_feeds(specs, batch=2, count=4, seed=0),
        specs,
    )
    arm = ServedArm("v", endpoint, "client_echo", requests, batch=2, pid=shared_triton.server.pid)
    window = arm.measure(Load(concurrency=2, round=0, window_s=0.3, warmup_s=0.1))
    assert window.server is not None
    assert window.server.mean_batch >= 2
    # The client waits at least as long as the server works on a request.
    assert window.latency_mean_ms * 1000 >= window.server.compute_infer_us
    assert window.cpu_ms_per_inference is not None
    assert 0 < window.cpu_ms_per_inference < 1000
    # Little's law: with two requests in flight, rate times latency is two.
    assert window.throughput_rps / 2 * window.latency_mean_ms / 1000 == pytest.approx(2, rel=0.1)


def test_a_request_that_the_server_refuses_every_time_is_an_error_with_its_words(endpoint):
    specs = endpoint.model_metadata("client_echo").inputs
    too_many = random_feeds(specs, batch=9, count=1, seed=0)
    requests = prepare_requests(str(endpoint.address), "client_echo", too_many, specs)
    arm = ServedArm("v", endpoint, "client_echo", requests, batch=9)
    with pytest.raises(InfrastructureError, match=r"HTTP 400: .*batch-size must be <= 8"):
        arm.measure(Load(concurrency=1, round=0, window_s=0.1, warmup_s=0))
