"""``trimton perf`` with schedules, limits and perf_analyzer's files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import Program
from onnx import TensorProto, helper

from trimton.perf.formats.traces import read_trace
from trimton.plugin.cli.load_levels import Endless, concurrency_levels, rate_levels

QUICK = ("--rounds", "3", "--window", "0.1", "--warmup", "0.02")
CONFIG = 'backend: "onnxruntime"\nmax_batch_size: 8\n'


def matmul_model() -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    weights = onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y])
    graph.initializer.append(weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def model(tmp_path: Path) -> str:
    onnx.save(matmul_model(), tmp_path / "m.onnx")
    return str(tmp_path / "m.onnx")


@pytest.fixture
def run(capsys):
    return Program(capsys, ("perf",))


@pytest.fixture
def served(run, triton):
    """``perf`` on a model of the shared server, with the machine's output."""
    triton.serve("perf_loads", matmul_model(), CONFIG)

    def call(*arguments: str, url: str = triton.server.http_url):
        code, out, err = run("perf_loads", "-u", url, *arguments, "--json")
        assert err == ""
        return code, json.loads(out)

    return call


def test_ranges_mean_what_perf_analyzer_means():
    assert concurrency_levels(None, "2:8:3") == [2, 5, 8]
    assert [level.rate_rps for level in rate_levels(None, "100:100.3:0.1", "constant")] == (
        pytest.approx([100, 100.1, 100.2, 100.3])
    )
    endless = concurrency_levels(None, "998:0:1")
    assert isinstance(endless, Endless)
    assert list(endless) == list(endless) == [998, 999, 1000]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--request-rate", "1e7"), "1e+07 requests/s are more than one client can send"),
        (("--request-rate", "0"), "--request-rate 0: give requests per second"),
        (("--request-rate-range", "5:1:1"), "--request-rate-range 5:1:1: give START:END:STEP"),
        (("--request-rate-range", "nan"), "--request-rate-range nan"),
        (("--request-rate", "10", "--request-distribution", "gamma"), "constant, poisson"),
        (("--request-rate", "10", "--concurrency", "2"), "give one kind of load"),
        (("--ramp", "1:2"), "--ramp 1:2: give START:END:SECONDS"),
        (("--ramp", "1:1e9:3"), "more than one client can send"),
        (("--replay", "missing.txt"), "missing.txt: cannot be read"),
        (("--concurrency-range", "1:0:1"), "END 0 needs --latency-threshold"),
        (("--latency-threshold", "-1"), "--latency-threshold must lie"),
        (("--percentile", "100"), "--percentile must lie between 0 and 100"),
        (("--peak",), "--peak needs the limit to keep: --latency-threshold MS"),
        (("--max-error-rate", "1"), "--max-error-rate is for --peak"),
        (
            ("--peak", "--latency-threshold", "5", "--peak-precision", "0"),
            "--peak-precision must lie between 0.5",
        ),
        (("--rounds", "2", "--measurement-interval", "100"), "give one or the other"),
        (("--max-trials", "2"), "--max-trials must lie between 3"),
        (("--window", "1", "--request-count", "5"), "give --window or --request-count"),
        (("--request-count", "0"), "--request-count must lie between 1"),
        (("--warmup", "soon"), "--warmup soon: give seconds, or auto"),
        (("--window", "3000", "--request-rate", "90000"), "requests in one window"),
        (("--protocol", "carrier-pigeon"), "is no protocol; choose one of http, grpc"),
        (("--protocol", "grpc"), "runs in this process; --protocol"),
        (("--shared-memory", "cuda"), "choose none or system"),
        (("--shared-memory", "system"), "runs in this process"),
        (("--tls",), "--tls is for a server at --url"),
        (("--tls-ca", "ca.pem"), "need --tls"),
        (("--header", "nonsense"), "give NAME: VALUE"),
        (("--input-data", "missing.json"), "missing.json: cannot be read"),
        (("--input-data", "zero", "--data", "d.npz"), "give --data or --input-data"),
        (("--request-rate", "10"), "loaded by concurrency; for a request rate"),
        (("--peak", "--latency-threshold", "5"), "which needs a server"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(run, model, arguments, message):
    code, out, err = run(model, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_windows_are_repeated_by_perf_analyzers_rule(run, model):
    options = ("--measurement-interval", "20", "--stability-percentage", "0.1", "--max-trials", "4")
    _, out, _ = run(model, *options, "--warmup", "0", "--json")
    document = json.loads(out)
    assert document["stability_rule"] == {"spread": 0.001, "percentile": None, "trials_max": 4}
    assert document["rounds"] is None
    [level] = document["levels"]
    assert level["rounds"] == 3
    # A tenth of a percent is more than a machine repeats: the level is there, and marked.
    assert level["stable"] is False
    assert level["notes"][0].startswith("not stable within 4 windows")


def test_a_number_of_requests_is_sent_exactly(run, model):
    _, out, _ = run(model, "--request-count", "123", "--concurrency", "1,2", "--json")
    document = json.loads(out)
    assert document["request_count"] == 123
    assert [level["requests"] for level in document["levels"]] == [123, 123]


def test_a_range_ends_at_the_first_level_over_the_limit(run, model):
    options = ("--rounds", "1", "--window", "0.05", "--warmup", "0", "--json")
    limit = ("--concurrency-range", "1:0:1", "--latency-threshold")
    document = json.loads(run(model, *options, *limit, "0.001")[1])
    assert [level["concurrency"] for level in document["levels"]] == [1]
    [note] = document["notes"]
    assert "over the limit of 0.001 ms" in note
    capped = ("--concurrency-range", "1:3:1", "--latency-threshold", "60000")
    document = json.loads(run(model, *options, *capped)[1])
    assert [level["concurrency"] for level in document["levels"]] == [1, 2, 3]
    assert "within the limit" in document["notes"][0]


def test_the_end_of_the_warm_up_is_found_and_told(run, model):
    document = json.loads(run(model, "--warmup", "auto", *QUICK[:4], "--json")[1])
    assert document["warmup"]["seconds"] >= 0
    assert isinstance(document["warmup"]["found"], bool)


def test_perf_analyzers_files_are_written(run, model, tmp_path):
    report, export = tmp_path / "r.csv", tmp_path / "e.json"
    options = ("--request-count", "50", "--concurrency", "1,2")
    files = ("-f", str(report), "--profile-export-file", str(export))
    assert run(model, *options, *files)[0] == 0
    with report.open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["Concurrency"] for row in rows) == ["1", "2"]
    experiments = json.loads(export.read_text())["experiments"]
    assert [e["experiment"]["value"] for e in experiments] == [1, 2]
    assert [len(e["requests"]) for e in experiments] == [50, 50]


def test_a_file_that_cannot_be_written_is_one_sentence(run, model, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run(model, *QUICK, "-f", str(tmp_path / "file" / "r.csv"))
    assert code == 2
    assert "cannot be written" in err


def test_perf_analyzers_input_data_is_sent(run, model, tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps({"data": [{"x": [1, 2, 3, 4]}, {"x": [5, 6, 7, 8]}]}))
    assert run(model, *QUICK, "--input-data", str(path), "-b", "2")[0] == 0
    path.write_text(json.dumps({"data": [{"x": [1, 2, 3]}]}))
    code, _, err = run(model, *QUICK, "--input-data", str(path))
    assert code == 2
    assert "has 3 values, but the shape [1, 4]" in err


@pytest.mark.server
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_rate_is_kept_and_its_latency_stands_beside_the_service_time(served, triton, protocol):
    url = triton.server.http_url if protocol == "http" else triton.server.grpc_url
    options = ("-i", protocol, "--request-rate", "200", "--rounds", "3", "--window", "0.5")
    code, document = served(*options, url=url)
    assert code == 0
    assert document["protocol"] == protocol
    [level] = document["levels"]
    assert "concurrency" not in level
    assert (level["rate_rps"], level["arrivals"]) == (200, "constant")
    assert level["requests"] + level["errors"] == 300
    assert level["latency_ms"]["mean"] >= level["service_ms"]["mean"] > 0
    assert level["late"]["count"] >= level["late"]["client"]
    assert level["connections"] >= 1
    # Over gRPC the server counts a request a moment after it has answered, so that the last of a
    # round may fall out of its account.
    assert level["server"]["requests"] == pytest.approx(300, abs=3)


@pytest.mark.server
def test_a_ramp_is_shown_in_slices_of_time(served):
    _, document = served("--ramp", "100:500:1", "--warmup", "0")
    assert (document["rounds"], document["window_s"]) == (1, 1.0)
    assert sum(part["requests"] for part in document["slices"]) == 300
    rates = [part["rate_rps"] for part in document["slices"]]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(120, abs=20)
    assert rates[-1] == pytest.approx(480, abs=20)


@pytest.mark.server
def test_a_saved_trace_is_replayed_with_the_same_arrivals(served, tmp_path):
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    rate = ("--request-rate", "200", "--request-distribution", "poisson", "--seed", "3")
    served(*rate, "--rounds", "1", "--window", "0.5", "--save-trace", str(first))
    _, document = served("--replay", str(first), "--save-trace", str(second))
    recorded, replayed = read_trace(first).offsets_ns, read_trace(second).offsets_ns
    assert np.array_equal(recorded, replayed)
    assert document["levels"][0]["requests"] == len(recorded)


@pytest.mark.server
def test_shared_memory_carries_tensors_over_both_protocols(served, triton):
    options = ("--shared-memory", "system", "--concurrency", "2", *QUICK)
    for protocol, url in (("http", triton.server.http_url), ("grpc", triton.server.grpc_url)):
        _, document = served("-i", protocol, *options, url=url)
        [level] = document["levels"]
        assert level["errors"] == 0
        assert level["requests"] > 0


@pytest.mark.server
def test_a_search_ends_with_a_peak_and_its_level(served):
    limits = ("--peak", "--latency-threshold", "5", "--percentile", "50")
    coarse = ("--max-error-rate", "100", "--peak-precision", "30")
    code, document = served(*limits, *coarse, *QUICK)
    assert code == 0
    peak = document["peak"]
    # After the last trial that held, only what broke is tried once more.
    at_peak = [trial for trial in peak["trials"] if trial["rate_rps"] == peak["rate_rps"]]
    assert at_peak[-1]["holds"]
    assert peak["broken_rps"] is None or peak["broken_rps"] <= 1.3 * peak["rate_rps"]
    [level] = document["levels"]
    assert level["rate_rps"] == peak["rate_rps"]
    assert level["arrivals"] == "poisson"


@pytest.mark.server
def test_a_limit_that_no_rate_keeps_is_a_failure(served):
    code, document = served("--peak", "--latency-threshold", "0.001", "--percentile", "50", *QUICK)
    assert code == 1
    assert document["peak"]["rate_rps"] is None
    assert document["levels"] == []


@pytest.mark.server
def test_the_wrong_port_is_one_sentence(run, triton):
    triton.serve("perf_loads", matmul_model(), CONFIG)
    code, _, err = run("perf_loads", "-u", triton.server.http_url, "-i", "grpc", *QUICK)
    assert code == 4
    assert err.count("\n") == 1
    assert "gRPC" in err


@pytest.mark.server
def test_a_model_that_is_not_ready_is_one_sentence(run, triton):
    triton.write("perf_unloaded", matmul_model(), CONFIG)
    code, _, err = run("perf_unloaded", "-u", triton.server.http_url, *QUICK)
    assert code == 2
    assert "perf_unloaded" in err
    assert err.count("\n") == 1
