"""What the endpoint says when a server is absent, wrong, or refuses."""

from __future__ import annotations

import numpy as np
import pytest

from trimton.core.errors import InfrastructureError, InputError
from trimton.perf.load.arms import Load, ServedArm
from trimton.perf.load.requests import prepare_requests
from trimton.perf.targets.address import Address
from trimton.perf.targets.endpoint import Endpoint
from trimton.perf.targets.tensors import TensorSpec


@pytest.mark.parametrize(
    ("text", "host", "port", "printed"),
    [
        ("localhost", "localhost", 8000, "localhost:8000"),
        ("10.0.0.1:9000", "10.0.0.1", 9000, "10.0.0.1:9000"),
        ("http://host:1/", "host", 1, "host:1"),
        ("[::1]:8000", "::1", 8000, "[::1]:8000"),
    ],
)
def test_addresses_are_host_and_port(text, host, port, printed):
    address = Address.parse(text)
    assert (address.host, address.port, str(address)) == (host, port, printed)


@pytest.mark.parametrize(
    "text", ["", ":8000", "host:port", "host:70000", "https://host", "grpc://host:1", "host/v2"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InputError, match="no server address"):
        Address.parse(text)


def test_nobody_listening_is_one_sentence(scripts):
    server = scripts.always("ok")
    server.stop()
    with (
        Endpoint(server.address) as endpoint,
        pytest.raises(InfrastructureError, match=f"{server.address} does not answer"),
    ):
        endpoint.server_metadata()
    assert not endpoint.is_ready()


def test_a_port_that_speaks_no_http_is_named_as_such(scripts):
    with (
        Endpoint(scripts.always("not_http").address) as endpoint,
        pytest.raises(InfrastructureError, match="does not speak HTTP; give the HTTP port"),
    ):
        endpoint.server_metadata()


def test_an_answer_that_is_no_json_is_named_as_such(scripts):
    with (
        Endpoint(scripts.always("ok").address) as endpoint,
        pytest.raises(InfrastructureError, match="does not answer in JSON"),
    ):
        endpoint.model_metadata("m")


def test_a_connection_that_the_server_closed_meanwhile_is_opened_again(scripts):
    document = {"name": "triton", "version": "1"}
    server = scripts.start(
        lambda number: lambda connection: scripts.answer(200, document)(connection) and False
    )
    with Endpoint(server.address) as endpoint:
        for _ in range(3):
            assert endpoint.server_metadata().version == "1"
    assert len(server.requests) == 3


@pytest.mark.parametrize(("status", "kind"), [(404, InputError), (500, InfrastructureError)])
def test_a_refusal_carries_the_servers_words(scripts, status, kind):
    reaction = scripts.answer(status, {"error": "Request for unknown model: 'm' is not found"})
    with (
        Endpoint(scripts.start(lambda number: reaction).address) as endpoint,
        pytest.raises(kind, match="answers: Request for unknown model: 'm' is not found"),
    ):
        endpoint.model_metadata("m")


def test_a_server_without_statistics_has_none(scripts):
    reaction = scripts.answer(404, {"error": "no such resource"})
    with Endpoint(scripts.start(lambda number: reaction).address) as endpoint:
        assert endpoint.model_statistics("m") is None
        assert endpoint.max_batch_size("m") is None


def test_a_server_without_tritons_extensions_can_be_loaded(scripts):
    def behave(number):
        is_inference = server.requests[number].startswith(b"POST")
        return scripts.answer(200 if is_inference else 404, {"outputs": []})

    server = scripts.start(behave)
    spec = TensorSpec("x", "FP32", (None, 1))
    feeds = [{"x": np.zeros((1, 1), np.float32)}]
    requests = prepare_requests(str(server.address), "m", feeds, [spec])
    with Endpoint(server.address) as endpoint:
        window = ServedArm("v", endpoint, "m", requests).measure(Load(1, 0, 0.1, 0))
    assert window.requests > 0
    assert window.server is None
    assert window.cpu_ms_per_inference is None


def test_the_batch_limit_is_read_from_the_configuration(scripts):
    limits = [8, 0]
    with Endpoint(
        scripts.start(lambda n: scripts.answer(200, {"max_batch_size": limits[n]})).address
    ) as endpoint:
        assert endpoint.max_batch_size("m") == 8
        assert endpoint.max_batch_size("m") is None


def test_a_server_without_binary_tensors_is_told_so(scripts):
    outputs = [{"name": "y", "datatype": "FP32", "shape": [1], "data": [1.0]}]
    reaction = scripts.answer(200, {"outputs": outputs})
    with (
        Endpoint(scripts.start(lambda number: reaction).address) as endpoint,
        pytest.raises(InfrastructureError, match="lacks the binary tensor data extension"),
    ):
        endpoint.infer(
            "m", {"x": np.zeros((1, 1), np.float32)}, [TensorSpec("x", "FP32", (None, 1))]
        )


def test_metadata_has_none_for_free_dimensions(scripts):
    document = {
        "name": "m",
        "versions": ["1", "3"],
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [{"name": "y", "datatype": "BYTES", "shape": [2]}],
    }
    reaction = scripts.answer(200, document)
    with Endpoint(scripts.start(lambda number: reaction).address) as endpoint:
        metadata = endpoint.model_metadata("m")
    assert metadata.versions == ("1", "3")
    assert metadata.inputs == (TensorSpec("x", "FP32", (None, 3)),)
    assert metadata.outputs == (TensorSpec("y", "BYTES", (2,)),)
