"""Prepared requests are what the protocol says."""

from __future__ import annotations

import json

import httptools
import numpy as np
import pytest

from trimton.core.errors import InputError
from trimton.perf.load.requests import encode_request, prepare_requests
from trimton.perf.targets.tensors import TensorSpec

SPECS = (TensorSpec("a", "FP32", (None, 2)), TensorSpec("b", "BYTES", (None, 1)))
INPUTS = {
    "a": np.array([[1.5, -2.0]], np.float32),
    "b": np.array([["é"]], dtype=object),
}


class Parsed:
    """One HTTP request, parsed by an independent parser."""

    def __init__(self, data: bytes) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = 0
        self.url = b""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


def test_a_request_is_one_whole_message_with_head_and_packed_tensors():
    parsed = Parsed(encode_request("[::1]:8000", "m", INPUTS, SPECS))
    assert parsed.complete == 1
    assert parsed.headers["host"] == "[::1]:8000"
    assert parsed.url == b"/v2/models/m/infer"
    split = int(parsed.headers["inference-header-content-length"])
    head = json.loads(parsed.body[:split])
    assert head["parameters"] == {"binary_data_output": True}
    assert head["inputs"] == [
        {
            "name": "a",
            "shape": [1, 2],
            "datatype": "FP32",
            "parameters": {"binary_data_size": 8},
        },
        {
            "name": "b",
            "shape": [1, 1],
            "datatype": "BYTES",
            "parameters": {"binary_data_size": 6},
        },
    ]
    assert parsed.body[split:] == INPUTS["a"].tobytes() + b"\x02\x00\x00\x00\xc3\xa9"


def test_a_model_name_cannot_leave_its_place_in_the_path():
    parsed = Parsed(encode_request("h", "../x y\r\nEvil: 1", INPUTS, SPECS))
    assert parsed.url == b"/v2/models/..%2Fx%20y%0D%0AEvil%3A%201/infer"
    assert "evil" not in parsed.headers


def test_an_unknown_input_is_named():
    with pytest.raises(InputError, match="'c' is no input of the model"):
        encode_request("h", "m", {"c": INPUTS["a"]}, SPECS)


def test_prepared_requests_stay_within_the_memory_limit_but_are_at_least_one():
    feeds = [INPUTS] * 10
    size = len(encode_request("h", "m", INPUTS, SPECS))
    assert len(prepare_requests("h", "m", feeds, SPECS)) == 10
    assert len(prepare_requests("h", "m", feeds, SPECS, max_bytes=3 * size + 1)) == 3
    assert len(prepare_requests("h", "m", feeds, SPECS, max_bytes=1)) == 1
