"""``trimton perf`` with streaming, sequences and workers, on a real Triton."""

from __future__ import annotations

import json

import pytest
from command_line import Program

QUICK = ("--rounds", "3", "--window", "0.15", "--warmup", "0.05", "--json")
DECOUPLED = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for number in range(3):
                tensor = pb_utils.Tensor("y", np.full((1, 1), number, np.float32))
                sender.send(pb_utils.InferenceResponse([tensor]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
DECOUPLED_CONFIG = """
backend: "python"
max_batch_size: 1
input { name: "x" data_type: TYPE_FP32 dims: 1 }
output { name: "y" data_type: TYPE_FP32 dims: 1 }
model_transaction_policy { decoupled: true }
"""
# Answers with the number of steps of the request's sequence so far, and refuses a fifth.
COUNTING = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.steps = {}

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        def value(name):
            return int(pb_utils.get_input_tensor_by_name(request, name).as_numpy().ravel()[0])

        number = value("id")
        if number:  # else the batcher fills a slot that has no request
            self.steps[number] = 1 if value("start") else self.steps[number] + 1
        if self.steps.get(number, 0) > 4:
            return pb_utils.InferenceResponse([], pb_utils.TritonError("a fifth step"))
        count = np.full((1, 1), self.steps.get(number, 0), np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", count)])
"""
COUNTING_CONFIG = """
backend: "python"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: 1 }
output { name: "y" data_type: TYPE_FP32 dims: 1 }
sequence_batching {
  control_input { name: "start" control { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] } }
  control_input { name: "id" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
}
"""


@pytest.fixture(scope="module")
def server(shared_triton):
    models = {
        "cli_decoupled": (DECOUPLED, DECOUPLED_CONFIG),
        "cli_counting": (COUNTING, COUNTING_CONFIG),
    }
    for name, (code, config) in models.items():
        folder = shared_triton.repository / name
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.py").write_text(code)
        (folder / "config.pbtxt").write_text(config)
        shared_triton.server.control.load(name)
    yield shared_triton.server
    for name in models:
        shared_triton.server.control.unload(name)


@pytest.fixture
def run(capsys):
    return Program(capsys, ("perf",))


def level_of(result) -> dict:
    code, out, err = result
    assert (code, err) == (0, "")
    [level] = json.loads(out)["levels"]
    return level


@pytest.mark.server
def test_a_decoupled_model_is_measured_to_its_last_response(run, server):
    level = level_of(
        run("cli_decoupled", "-i", "grpc", "-u", server.grpc_url, "--streaming", *QUICK)
    )
    assert level["errors"] == 0
    streaming = level["streaming"]
    assert streaming["responses_per_request"] == 3
    assert 0 < streaming["first_response_ms"]["mean"] < level["latency_ms"]["mean"]


@pytest.mark.server
def test_workers_share_streams_and_their_responses_are_counted_together(run, server):
    streams = ("cli_decoupled", "-i", "grpc", "-u", server.grpc_url, "--streaming", *QUICK)
    level = level_of(run(*streams, "--workers", "2", "--request-rate", "60"))
    assert (level["errors"], level["requests"]) == (0, 3 * 9)
    streaming = level["streaming"]
    assert streaming["responses_per_request"] == 3
    assert 0 < streaming["first_response_ms"]["mean"] < level["service_ms"]["mean"]


@pytest.mark.server
def test_the_table_shows_the_first_response(run, server):
    code, out, _ = run(
        "cli_decoupled", "-i", "grpc", "-u", server.grpc_url, "--streaming", *QUICK[:-1]
    )
    assert code == 0
    assert "responses" in out


@pytest.mark.server
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_stateful_model_gets_sequences_of_the_length_that_was_asked_for(run, server, protocol):
    url = {"http": server.http_url, "grpc": server.grpc_url}[protocol]
    arguments = ("cli_counting", "-i", protocol, "-u", url, "--concurrency", "3", *QUICK)
    assert level_of(run(*arguments, "--sequence-length", "4"))["errors"] == 0
    longer = level_of(run(*arguments, "--sequence-length", "5"))
    # Every fifth request is a fifth step.
    assert longer["errors"] == pytest.approx(longer["requests"] / 4, rel=0.2)


@pytest.mark.server
def test_workers_share_a_load(run, server):
    arguments = ("probe", "-u", server.http_url, *QUICK, "--workers", "2")
    level = level_of(run(*arguments, "--concurrency", "4"))
    assert level["errors"] == 0
    assert level["requests"] > 10
    level = level_of(run(*arguments, "--request-rate", "100"))
    assert level["requests"] == 3 * 15


@pytest.mark.server
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--streaming",), "--streaming needs gRPC: give -i grpc"),
        (("--workers", "0"), "--workers must lie between 1 and 256, not 0"),
        (("--workers", "2", "--save-trace", "t"), "--workers is not for --save-trace"),
        (("--sequence-length", "0"), "--sequence-length must lie between 1 and 10000, not 0"),
        (("--sequence-length", "2", "--compress"), "--compress is not for --sequence-length"),
        (("-i", "grpc-stream"), "'grpc-stream' is no protocol; choose one of http, grpc"),
    ],
)
def test_what_contradicts_is_one_sentence(run, server, arguments, sentence):
    code, out, err = run("probe", "-u", server.http_url, *arguments)
    assert (code, out) == (2, "")
    assert sentence in " ".join(err.split())


@pytest.mark.server
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_port_of_the_other_protocol_is_one_sentence(run, server, protocol):
    other = {"http": server.grpc_url, "grpc": server.http_url}[protocol]
    code, out, err = run("probe", "-i", protocol, "-u", other)
    assert (code, out) == (4, "")
    name = {"http": "HTTP", "grpc": "gRPC"}[protocol]
    assert f"give the {name} port" in " ".join(err.split())
