"""Prepared gRPC requests and header blocks are what the specifications say."""

from __future__ import annotations

import gzip

import hpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from trimton.core.errors import InputError
from trimton.perf.load.grpc_requests import encode_grpc_message
from trimton.perf.load.grpc_stream import encode_stream_message
from trimton.perf.load.hpack_blocks import RequestBlocks, ResponseBlocks
from trimton.perf.load.infer_request import InferRequest, RequestTensor, SharedSlice, infer_request
from trimton.perf.load.requests import body_of
from trimton.perf.targets.tensors import TensorSpec

SPECS = (TensorSpec("a", "FP32", (None, 2)), TensorSpec("b", "BYTES", (None, 1)))
INPUTS = {"a": np.array([[1.5, -2.0]], np.float32), "b": np.array([["é"]], dtype=object)}
NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=40)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300)


def parsed(message: bytes) -> service_pb2.ModelInferRequest:
    assert message[0] == 0
    assert int.from_bytes(message[1:5]) == len(message) - 5
    return service_pb2.ModelInferRequest.FromString(message[5:])


def test_tensors_travel_as_raw_contents_in_the_order_of_the_inputs():
    request = parsed(encode_grpc_message(infer_request("m", INPUTS, SPECS)))
    assert request.model_name == "m"
    assert [(t.name, t.datatype, list(t.shape)) for t in request.inputs] == [
        ("a", "FP32", [1, 2]),
        ("b", "BYTES", [1, 1]),
    ]
    contents = [INPUTS["a"].tobytes(), b"\x02\x00\x00\x00\xc3\xa9"]
    assert list(request.raw_input_contents) == contents
    assert not request.outputs


def test_a_compressed_message_is_marked_and_unpacks_to_the_same():
    request = infer_request("m", INPUTS, SPECS)
    message = encode_grpc_message(request, compressed=True)
    assert message[0] == 1
    assert int.from_bytes(message[1:5]) == len(message) - 5
    assert gzip.decompress(message[5:]) == encode_grpc_message(request)[5:]


def test_parameters_keep_their_types():
    request = InferRequest("m", (), parameters={"on": True, "number": 7, "text": "t"})
    parameters = parsed(encode_grpc_message(request)).parameters
    assert parameters["on"].WhichOneof("parameter_choice") == "bool_param"
    assert parameters["number"].int64_param == 7
    assert parameters["text"].string_param == "t"


def test_shared_memory_is_referred_to_alike_over_both_protocols():
    request = InferRequest(
        "m",
        (RequestTensor("a", "FP32", (1, 2), SharedSlice("in", 64, 8)),),
        {"y": SharedSlice("out", 0, 16)},
    )
    message = parsed(encode_grpc_message(request))
    assert not message.raw_input_contents
    given_input = message.inputs[0].parameters
    assert given_input["shared_memory_region"].string_param == "in"
    assert given_input["shared_memory_offset"].int64_param == 64
    assert given_input["shared_memory_byte_size"].int64_param == 8
    [output] = message.outputs
    assert output.parameters["shared_memory_byte_size"].int64_param == 16
    body, head_length = body_of(request)
    assert head_length == len(body)
    assert b'"shared_memory_region":"in","shared_memory_byte_size":8' in body
    assert b'{"name":"y","parameters":{"shared_memory_region":"out"' in body


def test_a_streamed_request_asks_for_a_mark_at_the_end():
    message = parsed(encode_stream_message(infer_request("m", INPUTS, SPECS)))
    assert message.parameters["triton_enable_empty_final_response"].bool_param


def test_an_unknown_input_is_named():
    with pytest.raises(InputError, match="'c' is no input of the model"):
        infer_request("m", {"c": INPUTS["a"]}, SPECS)


@given(st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=12), st.sampled_from([4096, 100]))
def test_header_blocks_mean_the_same_fields_every_time(fields, table_bytes):
    """Decoded by an independent implementation, in the order in which they are sent."""
    blocks = RequestBlocks.of(fields, table_bytes)
    decoder = hpack.Decoder()
    decoder.header_table_size = table_bytes
    decoder.max_allowed_table_size = table_bytes
    for block in (blocks.first, blocks.later, blocks.later):
        assert decoder.decode(block) == fields


@given(st.lists(st.tuples(NAMES, VALUES), max_size=12, unique_by=lambda field: field[0]))
def test_response_blocks_decode_whatever_form_an_encoder_chooses(fields):
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    responses = ResponseBlocks()
    for huffman in (False, True, False):
        assert responses.decode(encoder.encode(fields, huffman=huffman)) == dict(fields)


def test_ever_new_response_blocks_do_not_fill_the_memory():
    encoder, responses = hpack.Encoder(), ResponseBlocks()
    encoder.header_table_size = 0
    for number in range(2000):
        fields = {"grpc-status": "3", "grpc-message": f"request {number}"}
        assert responses.decode(encoder.encode(list(fields.items()))) == fields
    assert len(responses._known) < 300


@pytest.mark.parametrize("block", [b"\xff\xff\xff\xff", b"\x40\x05ab", b"\xc0"])
def test_a_broken_block_is_a_value_error(block):
    with pytest.raises(ValueError, match="broken header fields"):
        ResponseBlocks().decode(block)
