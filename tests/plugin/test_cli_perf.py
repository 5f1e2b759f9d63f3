"""``trimton perf`` on files, model folders and running servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from command_line import Program
from onnx import TensorProto, helper

from trimton.perf.targets.endpoint import Endpoint
from trimton.plugin.server.process import TritonServer

QUICK = ("--rounds", "3", "--window", "0.1", "--warmup", "0.02")
CONFIG = 'backend: "onnxruntime"\nmax_batch_size: 8\n'


def matmul_model(rest=(4,), repeat=1) -> onnx.ModelProto:
    """``y = x @ I`` ``repeat`` times over, x [n, *rest]."""
    shape = ["n", *rest]
    size = rest[-1] if isinstance(rest[-1], int) else 4
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    names = ["x", *(f"h{i}" for i in range(repeat - 1)), "y"]
    nodes = [helper.make_node("MatMul", [names[i], "w"], [names[i + 1]]) for i in range(repeat)]
    weights = onnx.numpy_helper.from_array(np.eye(size, dtype=np.float32), "w")
    graph = helper.make_graph(nodes, "g", [x], [y], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def model(tmp_path: Path) -> str:
    onnx.save(matmul_model(), tmp_path / "m.onnx")
    return str(tmp_path / "m.onnx")


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "repository" / "served"
    (folder / "1").mkdir(parents=True)
    onnx.save(matmul_model(), folder / "1" / "model.onnx")
    (folder / "config.pbtxt").write_text(CONFIG)
    return folder


@pytest.fixture
def run(capsys):
    return Program(capsys, ("perf",))


def test_a_file_is_measured_in_this_process(run, model):
    code, out, err = run(model, *QUICK, "--concurrency", "1,2", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["server"] is None
    assert [level["concurrency"] for level in document["levels"]] == [1, 2]
    for level in document["levels"]:
        latencies = level["latency_ms"]
        assert set(latencies) == {"mean", "p50", "p90", "p95", "p99"}
        assert 0 < latencies["p50"] <= latencies["p90"] <= latencies["p95"] <= latencies["p99"]
        low, high = level["throughput_interval"]
        assert low <= level["throughput_rps"] <= high
        assert level["requests"] > 459
        assert level["rounds"] == 3
        assert level["errors"] == 0
        assert level["client_cpu_us_per_request"] > 0
        assert isinstance(level["stable"], bool)


@pytest.mark.parametrize(("text", "levels"), [("3", [3]), ("1:2", [1, 2]), ("1:6:2", [1, 3, 5])])
def test_a_range_of_levels_means_what_perf_analyzer_means(run, model, text, levels):
    options = ("--rounds", "1", "--window", "0.02", "--warmup", "0", "--json")
    _, out, _ = run(model, *options, "--concurrency-range", text)
    assert [level["concurrency"] for level in json.loads(out)["levels"]] == levels


def test_the_table_names_the_levels_and_what_is_wrong_with_them(run, model):
    code, out, _ = run(model, "--rounds", "1", "--window", "0.1", "--concurrency-range", "1:3:2")
    assert code == 0
    rows = [line.split()[0] for line in out.splitlines() if line[:4].strip().isdigit()]
    assert rows == ["1", "3"]
    assert "m at concurrency 1, concurrency 3: stability needs 3 rounds" in out


def test_a_batch_counts_as_many_inferences(run, model):
    _, out, _ = run(model, *QUICK, "-b", "16", "--json")
    [level] = json.loads(out)["levels"]
    # One thread: inferences per second are 16 times the requests that fit into a second.
    requests_per_s = level["throughput_rps"] / 16
    assert requests_per_s <= 1000 / level["latency_ms"]["mean"] * 1.01


def test_samples_are_sent_and_checked(run, model, tmp_path):
    np.savez(tmp_path / "good.npz", x=np.ones((5, 4), np.float32))
    np.savez(tmp_path / "bad.npz", x=np.ones((5, 3), np.float32))
    assert run(model, *QUICK, "--data", str(tmp_path / "good.npz"))[0] == 0
    code, out, err = run(model, *QUICK, "--data", str(tmp_path / "bad.npz"))
    assert (code, out) == (2, "")
    assert "has shape (5, 3), but the model takes [N, 4]" in err


def test_free_dimensions_are_given_by_shape(run, tmp_path):
    path = tmp_path / "dynamic.onnx"
    onnx.save(matmul_model(("length", 4)), path)
    code, _, err = run(str(path), *QUICK)
    assert code == 2
    assert "--shape x:64,4" in err
    assert run(str(path), *QUICK, "--shape", "x:6,4")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--concurrency", "0"), "--concurrency 0: give numbers such as 1,4"),
        (("--concurrency", "1,x"), "--concurrency 1,x"),
        (("--concurrency", "5000"), "more than one client can send (at most 1000)"),
        (("--concurrency-range", "4:1:1"), "--concurrency-range 4:1:1"),
        (("--concurrency-range", "1:4:0"), "--concurrency-range 1:4:0"),
        (("--concurrency-range", "1:2:3:4"), "--concurrency-range 1:2:3:4"),
        (("--concurrency", "1", "--concurrency-range", "1:2:1"), "not both"),
        (("--window", "0"), "--window must lie"),
        (("--window", "nan"), "--window must lie"),
        (("--warmup", "-1"), "--warmup must lie"),
        (("--rounds", "0"), "--rounds must lie between 1"),
        (("--batch", "0"), "batch size must be at least 1"),
        (("--shape", "x"), "--shape x: give NAME:DIMS"),
        (("--shape", "x:a"), "--shape x:a: give NAME:DIMS"),
        (("--shape", "z:4"), "no input 'z'"),
        (("--shape", "x:5"), "does not fit"),
        (("--shape", "x:4", "--data", "d.npz"), "--shape is for made-up inputs"),
        (("--data", "missing.npz"), "missing.npz: no such file"),
        (("--seed", "-1"), "--seed must lie between 0"),
        (("--url", "https://x"), "is no server address"),
    ],
)
def test_a_wrong_option_is_one_sentence(run, model, arguments, message):
    code, out, err = run(model, *QUICK, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("content", [None, b"", b"just text\n", b"\x08\x07\x12"])
def test_a_file_that_is_no_model_is_one_sentence(run, tmp_path, content):
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    code, out, err = run(str(path), *QUICK)
    assert (code, out) == (2, "")
    assert err.startswith(f"trimton: {path}: ")
    assert err.count("\n") == 1


def test_what_is_no_model_at_all_is_one_sentence(run, tmp_path):
    code, _, err = run("nonsense", *QUICK)
    assert code == 2
    assert "neither an .onnx file nor a model folder" in err
    (tmp_path / "empty").mkdir()
    assert run(str(tmp_path / "empty"), *QUICK)[0] == 2


def test_a_server_that_does_not_answer_is_infrastructure(run):
    code, _, err = run("m", *QUICK, "--url", "127.0.0.1:1")
    assert code == 4
    assert "the server at 127.0.0.1:1 does not answer" in err


@pytest.mark.server
def test_a_model_on_a_running_server(run, triton):
    triton.serve("perf_by_name", matmul_model(), CONFIG)
    code, out, _ = run("perf_by_name", "-u", triton.server.http_url, *QUICK, "--json")
    assert code == 0
    document = json.loads(out)
    assert document["server"]["name"] == "triton"
    [level] = document["levels"]
    assert level["server"]["requests"] >= level["requests"]
    assert level["server"]["compute_infer_us"] > 0
    code, _, err = run("perf_by_name", "-u", triton.server.http_url, *QUICK, "-b", "9")
    assert code == 2
    assert "batch-size must be <= 8" in err
    code, _, err = run("nobody", "-u", triton.server.http_url, *QUICK)
    assert code == 2
    assert "unknown model: 'nobody'" in err
    code, _, err = run("perf_by_name", "-u", triton.server.grpc_url, *QUICK)
    assert code == 4
    assert "give the HTTP port" in err


@pytest.mark.server
def test_a_model_folder_is_served_by_a_local_triton_that_ends_with_the_command(
    run, model_folder, installation
):
    before = set(psutil.Process().children(recursive=True))
    code, out, _ = run(str(model_folder), *QUICK, "--json")
    assert code == 0
    [level] = json.loads(out)["levels"]
    assert level["cpu_ms_per_inference"] > 0
    assert level["server"]["mean_batch"] == 1
    assert set(psutil.Process().children(recursive=True)) <= before


def program(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "trimton.plugin.cli.main", "perf", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_loaded(address: str, model: str) -> None:
    """Return once the server has answered a hundred requests for ``model``."""
    deadline = time.monotonic() + 60
    with Endpoint(address) as endpoint:
        while time.monotonic() < deadline:
            if endpoint.is_ready():
                statistics = endpoint.model_statistics(model) or {}
                if statistics["model_stats"][0]["inference_count"] > 100:
                    return
            time.sleep(0.05)
    raise AssertionError("the load did not begin")


@pytest.mark.server
def test_a_server_killed_during_a_load_is_infrastructure(model_folder, installation, tmp_path):
    log_file = tmp_path / "log"
    with (
        TritonServer.start(model_folder.parent, log_file=log_file) as server,
        program("served", "-u", server.http_url, "--warmup", "0", "--window", "60") as load,
    ):
        wait_until_loaded(server.http_url, "served")
        os.kill(server.pid, signal.SIGKILL)
        _, err = load.communicate(timeout=60)
    assert load.returncode == 4
    assert err.count("\n") == 1
    assert f"the server at {server.http_url} went away during the load" in err


@pytest.mark.server
def test_a_killed_local_server_is_infrastructure(model_folder, installation):
    with program(str(model_folder), "--window", "60") as load:
        server = None
        deadline = time.monotonic() + 60
        while server is None and time.monotonic() < deadline:
            children = psutil.Process(load.pid).children(recursive=True)
            server = next((p for p in children if p.name() == "tritonserver"), None)
            time.sleep(0.05)
        assert server is not None
        command = server.cmdline()
        [port] = [part.partition("=")[2] for part in command if part.startswith("--http-port=")]
        wait_until_loaded(f"127.0.0.1:{port}", "served")
        server.kill()
        _, err = load.communicate(timeout=60)
    assert load.returncode == 4
    assert err.count("\n") == 1
    assert "the local Triton server ended during the measurement" in err
