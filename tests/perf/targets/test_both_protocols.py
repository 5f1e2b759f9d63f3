"""HTTP and gRPC against a real Triton: the same answers, the same counts, the same sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from models import echo_model
from onnx import TensorProto

from trimton.core.errors import InfrastructureError, InputError
from trimton.perf.load.closed_loop import run_closed_loop
from trimton.perf.load.feeds import random_feeds
from trimton.perf.load.protocols import PROTOCOLS, prepare_load, shared_memory_load
from trimton.perf.measure.server_statistics import statistics_between
from trimton.perf.targets.access import Access
from trimton.perf.targets.address import Address
from trimton.perf.targets.endpoint import Endpoint
from trimton.perf.targets.grpc_endpoint import GrpcEndpoint

pytestmark = pytest.mark.server

TYPES = {
    "FP32": TensorProto.FLOAT,
    "FP16": TensorProto.FLOAT16,
    "INT8": TensorProto.INT8,
    "INT64": TensorProto.INT64,
    "BOOL": TensorProto.BOOL,
    "BYTES": TensorProto.STRING,
}
MODEL = "both_protocols"
CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
dynamic_batching { max_queue_delay_microseconds: 100 }
"""


@pytest.fixture(scope="module")
def server(shared_triton):
    shared_triton.write(MODEL, echo_model(TYPES), CONFIG)
    shared_triton.server.control.load(MODEL)
    yield shared_triton.server
    shared_triton.server.control.unload(MODEL)


@pytest.fixture
def access(server):
    """The way to the server by the name of a protocol."""
    return {
        "http": Access(Address.parse(server.http_url)),
        "grpc": Access(Address.parse(server.grpc_url)),
    }


@pytest.fixture
def http(server):
    with Endpoint(server.http_url) as opened:
        yield opened


@pytest.fixture
def grpc(server):
    with GrpcEndpoint(server.grpc_url) as opened:
        yield opened


def test_both_say_the_same_about_server_and_model(http, grpc):
    assert grpc.server_metadata() == http.server_metadata()
    assert grpc.model_metadata(MODEL) == http.model_metadata(MODEL)
    assert grpc.model_config(MODEL) == http.model_config(MODEL)
    assert grpc.max_batch_size(MODEL) == http.max_batch_size(MODEL) == 8
    assert grpc.is_ready()
    assert http.is_ready()


def test_every_type_comes_back_over_grpc_as_it_was_sent(grpc):
    specs = grpc.model_metadata(MODEL).inputs
    assert {spec.datatype for spec in specs} == set(TYPES)
    [feed] = random_feeds(specs, batch=5, count=1, seed=3)
    feed["in_BYTES"][0, 0] = "ümlaut " * 50
    outputs = grpc.infer(MODEL, feed, specs)
    for name in TYPES:
        sent, back = feed[f"in_{name}"], outputs[f"out_{name}"]
        if name == "BYTES":
            sent = np.vectorize(lambda text: text.encode(), otypes=[object])(sent)
        assert back.dtype == sent.dtype
        np.testing.assert_array_equal(back, sent)


def test_an_unknown_model_and_a_wrong_shape_are_wrong_input_in_the_servers_words(grpc):
    with pytest.raises(InputError, match="unknown model: 'nobody'"):
        grpc.model_metadata("nobody")
    specs = grpc.model_metadata(MODEL).inputs
    [too_many] = random_feeds(specs, batch=9, count=1, seed=0)
    with pytest.raises(InputError, match="batch-size must be <= 8"):
        grpc.infer(MODEL, too_many, specs)


def test_the_port_of_the_other_protocol_is_one_sentence_each_way(server):
    with GrpcEndpoint(server.http_url) as wrong, pytest.raises(InfrastructureError) as said:
        wrong.server_metadata()
    assert str(said.value) == (
        f"what answers at {server.http_url} speaks HTTP, not gRPC; "
        "give the gRPC port of the server (usually 8001)."
    )
    with (
        Endpoint(server.grpc_url) as wrong,
        pytest.raises(InfrastructureError, match="does not speak HTTP; give the HTTP port"),
    ):
        wrong.server_metadata()


def test_no_server_is_one_sentence():
    with (
        GrpcEndpoint("127.0.0.1:1") as nobody,
        pytest.raises(
            InfrastructureError, match=r"127\.0\.0\.1:1 does not answer over gRPC \(connection"
        ),
    ):
        nobody.model_metadata(MODEL)
    with GrpcEndpoint("127.0.0.1:1") as nobody:
        assert not nobody.is_ready()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("compressed", [False, True])
def test_client_and_server_count_the_same_requests(access, http, protocol, compressed):
    specs = http.model_metadata(MODEL).inputs
    feeds = random_feeds(specs, batch=2, count=4, seed=0)
    load = prepare_load(
        PROTOCOLS[protocol], access[protocol], MODEL, feeds, specs, compressed=compressed
    )
    before = http.model_statistics(MODEL)
    window = run_closed_loop(load.connector, load.requests, 4, window_s=0.2, warmup_s=0)
    counted = statistics_between(before, http.model_statistics(MODEL))
    assert counted.requests == window.all_answers
    assert counted.inferences == 2 * window.all_answers
    assert not window.errors


def test_statistics_count_the_same_over_both(http, grpc, access):
    specs = http.model_metadata(MODEL).inputs
    load = prepare_load(
        PROTOCOLS["grpc"],
        access["grpc"],
        MODEL,
        random_feeds(specs, batch=1, count=1, seed=0),
        specs,
    )
    before = http.model_statistics(MODEL), grpc.model_statistics(MODEL)
    run_closed_loop(load.connector, load.requests, 2, window_s=0.1, warmup_s=0)
    after = http.model_statistics(MODEL), grpc.model_statistics(MODEL)
    over_http, over_grpc = (statistics_between(*pair) for pair in zip(before, after, strict=True))
    assert over_http == over_grpc


def regions() -> set[str]:
    return {path.name for path in Path("/dev/shm").glob("trimton-*puts")}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_shared_memory_carries_inputs_and_outputs_and_is_gone_afterwards(access, http, protocol):
    specs = http.model_metadata(MODEL).inputs
    feeds = random_feeds(specs, batch=2, count=3, seed=5)
    way = PROTOCOLS[protocol]
    with way.endpoint(access[protocol]) as endpoint:
        before = http.model_statistics(MODEL)
        known = regions()
        with shared_memory_load(
            way, access[protocol], endpoint, MODEL, feeds, batch=2, in_flight=4
        ) as load:
            assert len(load.requests) == 6
            made = regions() - known
            assert len(made) == 2
            by_purpose = {name.rpartition("-")[2]: name for name in made}
            inputs = (Path("/dev/shm") / by_purpose["inputs"]).read_bytes()
            window = run_closed_loop(load.connector, load.requests, 4, window_s=0.2, warmup_s=0)
            outputs = (Path("/dev/shm") / by_purpose["outputs"]).read_bytes()
    assert not window.errors
    assert window.requests > 6
    for feed in feeds:
        for name in ("in_FP32", "in_INT64"):
            assert feed[name].tobytes() in inputs
            assert outputs.count(feed[name].tobytes()) >= 2
    # The requests of the load, and those that measured the strings of the outputs.
    counted = statistics_between(before, http.model_statistics(MODEL))
    assert counted.requests == window.all_answers + len(feeds)
    assert regions() == known


def test_shared_memory_is_gone_after_an_error_too(access, http):
    specs = http.model_metadata(MODEL).inputs
    feeds = random_feeds(specs, batch=1, count=1, seed=5)
    known = regions()
    with (
        pytest.raises(KeyboardInterrupt),
        shared_memory_load(
            PROTOCOLS["http"], access["http"], http, MODEL, feeds, batch=1, in_flight=1
        ),
    ):
        raise KeyboardInterrupt
    assert regions() == known
    assert http._exchange("GET", "/v2/systemsharedmemory/status").body == b"[]"


def test_an_address_of_grpc_has_the_port_of_grpc():
    with GrpcEndpoint("localhost") as endpoint:
        assert endpoint.address == Address("localhost", 8001)
    with pytest.raises(InputError, match="give HOST:PORT of its gRPC port"):
        GrpcEndpoint("localhost/x")
