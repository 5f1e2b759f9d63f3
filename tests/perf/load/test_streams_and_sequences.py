"""Streaming and sequences against a real Triton whose models check what they are sent."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from trimton.core.errors import InputError
from trimton.perf.load.closed_loop import run_closed_loop
from trimton.perf.load.infer_request import InferRequest, infer_request
from trimton.perf.load.protocols import PROTOCOLS, PreparedLoad, prepare_load
from trimton.perf.load.requests import encode_message
from trimton.perf.load.sequences import (
    END_ID,
    FIRST_ID,
    cut_sequences,
    encode_sequence,
    sequence_ids,
)
from trimton.perf.load.shares import LoadSource
from trimton.perf.targets.access import Access
from trimton.perf.targets.address import Address
from trimton.perf.targets.tensors import TensorSpec

# Answers x with as many responses as x says, 5 ms apart, each carrying its number.
REPEAT = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            count = int(pb_utils.get_input_tensor_by_name(request, "x").as_numpy()[0])
            if count < 0:
                error = pb_utils.TritonError("a negative number of responses")
                sender.send(pb_utils.InferenceResponse(error=error))
            for number in range(count):
                time.sleep(0.005)
                tensor = pb_utils.Tensor("y", np.full(20000, number, np.int32))
                sender.send(pb_utils.InferenceResponse([tensor]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
REPEAT_CONFIG = """
backend: "python"
input { name: "x" data_type: TYPE_INT32 dims: 1 }
output { name: "y" data_type: TYPE_INT32 dims: -1 }
model_transaction_policy { decoupled: true }
"""
# Refuses a step that does not follow the one before it in its sequence.
ORDERED = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.next_step = {}

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        def value(name):
            return int(pb_utils.get_input_tensor_by_name(request, name).as_numpy().ravel()[0])

        number, step = value("id"), value("x")
        expected = 0 if value("start") else self.next_step.get(number)
        self.next_step[number] = step + 1
        if value("end"):
            del self.next_step[number]
        if step != expected:
            error = pb_utils.TritonError(f"step {step} where {expected} was expected")
            return pb_utils.InferenceResponse([], error)
        left = np.array([[len(self.next_step)]], np.int32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("open", left)])
"""
ORDERED_CONFIG = """
backend: "python"
max_batch_size: 4
input { name: "x" data_type: TYPE_INT32 dims: 1 }
output { name: "open" data_type: TYPE_INT32 dims: 1 }
sequence_batching {
  control_input { name: "start" control { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] } }
  control_input { name: "end" control { kind: CONTROL_SEQUENCE_END int32_false_true: [0, 1] } }
  control_input { name: "id" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
}
"""
REPEAT_SPEC = TensorSpec("x", "INT32", (1,))
ORDERED_SPEC = TensorSpec("x", "INT32", (None, 1))
LENGTH = 5


@pytest.fixture(scope="module")
def access(shared_triton):
    models = {"repeat": (REPEAT, REPEAT_CONFIG), "ordered": (ORDERED, ORDERED_CONFIG)}
    for name, (code, config) in models.items():
        folder = shared_triton.repository / name
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.py").write_text(code)
        (folder / "config.pbtxt").write_text(config)
        shared_triton.server.control.load(name)
    yield {
        "http": Access(Address.parse(shared_triton.server.http_url)),
        "grpc": Access(Address.parse(shared_triton.server.grpc_url)),
        "grpc-stream": Access(Address.parse(shared_triton.server.grpc_url)),
    }
    for name in models:
        shared_triton.server.control.unload(name)


def repeat_load(access, counts, **options):
    feeds = [{"x": np.array([count], np.int32)} for count in counts]
    load = prepare_load(
        PROTOCOLS["grpc-stream"], access["grpc-stream"], "repeat", feeds, [REPEAT_SPEC]
    )
    window = run_closed_loop(load.connector, load.requests, warmup_s=0, **options)
    return window, load.response_times


@pytest.mark.server
def test_a_request_ends_with_the_last_of_its_responses(access):
    window, times = repeat_load(access, [4], concurrency=1, window_s=0.3)
    assert not window.errors
    assert times.requests == window.all_answers > 3
    assert times.responses_per_request == 4
    assert times.first.count == times.requests
    assert times.between.count == 3 * times.requests
    # The model waits 5 ms before each of its responses.
    assert times.first.mean_ms >= 5
    assert times.between.mean_ms >= 4
    assert window.mean_latency_ms >= times.first.mean_ms + 3 * 4


@pytest.mark.server
def test_a_request_without_any_response_ends_too(access):
    window, times = repeat_load(access, [0, 2], concurrency=2, window_s=0.2)
    assert not window.errors
    assert 0 < times.responses < 2 * times.requests
    assert times.first.count == times.between.count == times.responses / 2


@pytest.mark.server
def test_an_error_in_a_stream_is_counted_with_its_words_and_the_stream_goes_on(access):
    window, _ = repeat_load(access, [1, 1, -1], concurrency=1, window_s=0.3)
    assert window.requests > 2
    assert set(window.errors) == {"gRPC stream error"}
    assert "a negative number of responses" in window.error_example


@pytest.mark.server
def test_times_are_forgotten_before_the_window(access):
    feeds = [{"x": np.array([1], np.int32)}]
    load = prepare_load(
        PROTOCOLS["grpc-stream"], access["grpc-stream"], "repeat", feeds, [REPEAT_SPEC]
    )
    times = load.response_times
    window = run_closed_loop(
        load.connector,
        load.requests,
        2,
        window_s=0.1,
        warmup_s=0.1,
        before_window=times.reset,
    )
    assert times.requests == window.all_answers


@pytest.mark.server
def test_a_model_that_is_not_decoupled_answers_in_a_stream_as_well(access):
    feeds = [{"x": np.ones((1, 3), np.float32)}]
    spec = TensorSpec("x", "FP32", (None, 3))
    load = prepare_load(PROTOCOLS["grpc-stream"], access["grpc-stream"], "probe", feeds, [spec])
    window = run_closed_loop(load.connector, load.requests, 3, window_s=0.2, warmup_s=0)
    assert window.requests > 3
    assert not window.errors
    assert load.response_times.responses_per_request == 1


def ordered_requests() -> list[InferRequest]:
    return [
        infer_request("ordered", {"x": np.array([[step]], np.int32)}, [ORDERED_SPEC])
        for step in range(LENGTH)
    ]


def sequence_load(protocol: str, access: Access, sequences) -> PreparedLoad:
    def encode(request: InferRequest) -> bytes:
        return PROTOCOLS[protocol].encode(request, access, False)

    steps = tuple(encode_sequence(sequence, encode) for sequence in sequences)
    return LoadSource(protocol, access, sequences=steps).prepare()


@pytest.mark.server
@pytest.mark.parametrize("protocol", ["http", "grpc", "grpc-stream"])
def test_every_sequence_is_sent_in_its_order(access, protocol):
    load = sequence_load(protocol, access[protocol], cut_sequences(ordered_requests(), LENGTH))
    window = run_closed_loop(load.connector, load.requests, 3, window_s=0.3, warmup_s=0.1)
    assert window.requests > 3 * LENGTH
    assert not window.errors, window.error_example
    # Sequences that were under way go on in the next load, where they stopped.
    again = run_closed_loop(load.connector, load.requests, 3, window_s=0.1, warmup_s=0)
    assert not again.errors, again.error_example


@pytest.mark.server
def test_a_step_out_of_order_is_what_the_model_refuses(access):
    """The model of these tests does see a wrong order."""
    wrong = [ordered_requests()[0], ordered_requests()[2]]
    load = sequence_load("http", access["http"], [wrong])
    window = run_closed_loop(load.connector, load.requests, 1, window_s=0.1, warmup_s=0)
    assert "step 2 where 1 was expected" in window.error_example


@pytest.mark.parametrize("protocol", ["http", "grpc", "grpc-stream"])
def test_a_numbered_step_is_what_encoding_the_number_gives(protocol):
    way, access = PROTOCOLS[protocol], Access(Address("h", 1))
    requests = ordered_requests()[:2]
    steps = encode_sequence(requests, lambda request: way.encode(request, access, False))
    for number in (FIRST_ID, 2_345_678_901, END_ID - 1):
        for index, step in enumerate(steps):
            parameters = {
                "sequence_id": number,
                "sequence_start": index == 0,
                "sequence_end": index == 1,
            }
            whole = InferRequest("ordered", requests[index].inputs, parameters=parameters)
            assert step.numbered(number) == way.encode(whole, access, False)


def test_a_sequence_that_fails_is_begun_anew_under_another_number(scripts):
    failing = scripts.answer(500, {"error": "lost"})
    server = scripts.one_in(4, failing)
    load = sequence_load("http", Access(server.address), cut_sequences(ordered_requests(), LENGTH))
    window = run_closed_loop(load.connector, load.requests, 1, window_s=0.1, warmup_s=0)
    assert window.errors["HTTP 500"] > 2
    # Requests 0 to 3 are steps 0 to 3 of one sequence; the last fails, the next begins anew.
    steps = [(b'"sequence_start":true' in request) for request in server.requests[:8]]
    assert steps == [True, False, False, False] * 2
    numbers = [request.partition(b'"sequence_id":')[2][:10] for request in server.requests[:8]]
    assert len(set(numbers[:4])) == len(set(numbers[4:])) == 1
    assert numbers[0] != numbers[4]


def test_sequences_use_all_requests_in_turn():
    one, two, three = ordered_requests()[:3]
    assert cut_sequences([one, two, three], 2) == ((one, two), (three, one))
    assert cut_sequences([one, two], 3) == ((one, two, one),)
    with pytest.raises(InputError, match="at least 1, not 0"):
        cut_sequences([one], 0)


def test_workers_draw_numbers_from_ranges_of_their_own():
    drawn = [set(itertools.islice(sequence_ids(worker, 3), 1000)) for worker in range(3)]
    size = (END_ID - FIRST_ID) // 3
    for worker, numbers in enumerate(drawn):
        assert len(numbers) == 1000
        first = FIRST_ID + worker * size
        assert first <= min(numbers)
        assert max(numbers) < first + size


def test_compressed_requests_cannot_be_a_sequence():
    with pytest.raises(InputError, match="cannot be compressed"):
        encode_sequence(
            ordered_requests(), lambda request: encode_message(request, "h", compressed=True)
        )
