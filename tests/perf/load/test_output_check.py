"""Answers are compared with what is expected, and the first difference is named."""

from __future__ import annotations

import json
from struct import pack as pack_struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from trimton.core.errors import InputError
from trimton.perf.load.closed_loop import run_closed_loop
from trimton.perf.load.infer_request import infer_request
from trimton.perf.load.output_check import OutputCheck, first_mismatch
from trimton.perf.load.protocols import PROTOCOLS
from trimton.perf.load.shares import LoadSource
from trimton.perf.load.tolerance import Tolerance
from trimton.perf.targets.access import Access
from trimton.perf.targets.tensors import TensorSpec

SPEC = TensorSpec("x", "FP32", (None, 2))
EXACT = Tolerance(0, 0)


def floats(*values: float) -> dict[str, np.ndarray]:
    return {"y": np.array([values], np.float32)}


@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20),
    st.integers(0, 19),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
)
def test_a_value_passes_within_the_tolerance_and_is_named_beyond_it(values, at, rtol, atol):
    expected = np.array(values, np.float64)
    at %= len(values)
    reach = atol + rtol * abs(expected[at])
    given = expected.copy()
    given[at] += 0.99 * reach
    assert first_mismatch({"y": expected}, {"y": given}, Tolerance(rtol, atol)) is None
    given[at] = expected[at] + 1.01 * reach + 1e-9
    text = first_mismatch({"y": expected}, {"y": given}, Tolerance(rtol, atol))
    assert text == f"output 'y' at [{at}]: got {given[at]:.9g}, expected {expected[at]:.9g}"


@pytest.mark.parametrize(
    ("expected", "outputs", "text"),
    [
        (floats(1), {}, "the answer has no output 'y'"),
        (floats(1), floats(1, 2), "output 'y' has the shape [1, 2], expected [1, 1]"),
        (floats(1, 2), floats(1, np.nan), "output 'y' at [0, 1]: got nan, expected 2"),
        (
            {"n": np.array([3, 4])},
            {"n": np.array([3, 5])},
            "output 'n' at [1]: got 5, expected 4",
        ),
        (
            {"s": np.array(["a", "b"], object)},
            {"s": np.array([b"a", b"c"], object)},
            "output 's' at [1]: got 'c', expected 'b'",
        ),
    ],
)
def test_the_first_difference_is_named(expected, outputs, text):
    assert first_mismatch(expected, outputs, Tolerance(0.5, 1)) == text


def test_nan_equals_nan_and_text_its_bytes_and_other_outputs_do_not_matter():
    expected = {"y": np.array([np.nan]), "s": np.array(["ä"], object)}
    outputs = {"y": np.array([np.nan]), "s": np.array(["ä".encode()], object), "z": np.zeros(3)}
    assert first_mismatch(expected, outputs, EXACT) is None


def source(protocol: str, address, expected, tolerance=EXACT) -> LoadSource:
    feeds = [{"x": np.full((1, 2), number, np.float32)} for number in range(len(expected))]
    access = Access(address)
    encode = PROTOCOLS[protocol].encode
    requests = tuple(encode(infer_request("m", feed, [SPEC]), access, False) for feed in feeds)
    return LoadSource(protocol, access, requests=requests, check=OutputCheck(expected, tolerance))


def load(made: LoadSource, worker: int = 0, workers: int = 1):
    prepared = made.prepare(worker, workers)
    return run_closed_loop(prepared.connector, prepared.requests, 2, window_s=0.2, warmup_s=0)


def http_answer(values: np.ndarray):
    head = {
        "outputs": [
            {
                "name": "y",
                "datatype": "FP32",
                "shape": list(values.shape),
                "parameters": {"binary_data_size": values.nbytes},
            }
        ]
    }
    text = json.dumps(head).encode()
    body = text + values.astype("<f4").tobytes()
    message = (
        f"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: {len(text)}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body

    def react(connection) -> bool:
        connection.sendall(message)
        return True

    return react


def echo(scripts):
    """A server that answers with the first value of what it was sent, over HTTP."""
    server = scripts.start(lambda number: None)

    def behaviour(number: int):
        request = server.requests[number]
        return http_answer(np.frombuffer(request[-8:], "<f4")[:1].reshape(1, 1))

    server.behaviour = behaviour
    return server


def test_right_outputs_are_successes_whichever_worker_asks(scripts):
    server = echo(scripts)
    made = source("http", server.address, [floats(number) for number in range(5)])
    for worker in range(2):
        window = load(made, worker, 2)
        assert window.requests > 20
        assert not window.errors


def test_a_wrong_output_is_counted_like_other_errors_and_the_load_goes_on(scripts):
    server = echo(scripts)
    window = load(source("http", server.address, [floats(0), floats(1), floats(7), floats(3)]))
    assert set(window.errors) == {"wrong output"}
    outcomes = window.requests + window.errors["wrong output"]
    assert outcomes > 20
    assert abs(window.errors["wrong output"] - outcomes / 4) <= 2
    assert window.error_example == (
        "wrong output: request 3, output 'y' at [0, 0]: got 2, expected 7"
    )


def test_what_holds_no_outputs_is_malformed(scripts):
    server = scripts.start(lambda number: scripts.answer(200, {"outputs": [{"name": "y"}]}))
    server_2 = scripts.always("ok")
    for one in (server, server_2):
        window = load(source("http", one.address, [floats(0)]))
        assert set(window.errors) == {"malformed response"}


def test_outputs_over_grpc_are_checked_too(peers):
    def message(values: np.ndarray) -> bytes:
        answer = service_pb2.ModelInferResponse()
        answer.outputs.add(name="y", datatype="FP32", shape=values.shape)
        answer.raw_output_contents.append(values.astype("<f4").tobytes())
        content = answer.SerializeToString()
        return pack_struct(">BL", 0, len(content)) + content

    def behaviour(link, call) -> None:
        value = np.frombuffer(call.content[-8:], "<f4")[:1].reshape(1, 1)
        link.answer(call.stream_id, message(value))

    peer = peers.start(behaviour)
    assert not load(source("grpc", peer.address, [floats(0), floats(1)])).errors
    window = load(source("grpc", peer.address, [floats(0), floats(2)]))
    assert window.requests > 5
    assert window.error_example == (
        "wrong output: request 2, output 'y' at [0, 0]: got 1, expected 2"
    )
    peer.behaviour = lambda link, call: link.answer(call.stream_id)
    broken = load(source("grpc", peer.address, [floats(0)]))
    assert set(broken.errors) == {"malformed response"}


def test_streamed_responses_are_refused():
    made = source("grpc-stream", None, [floats(0)])
    with pytest.raises(InputError, match="streamed responses are not checked"):
        made.prepare()
