"""``trimton perf`` and ``compare`` with perf_analyzer's validation data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import Program
from onnx import TensorProto, helper

QUICK = ("--rounds", "4", "--window", "0.1", "--warmup", "0.02")
CONFIG = 'backend: "onnxruntime"\nmax_batch_size: 8\n'


def scale_model(factor: float) -> onnx.ModelProto:
    """``y = factor * x`` for x [n, 2]."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    constant = onnx.numpy_helper.from_array(np.float32(factor), "f")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "f"], ["y"])], "g", [x], [y])
    graph.initializer.append(constant)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def models(tmp_path: Path) -> tuple[str, str]:
    paths = []
    for name, factor in (("double", 2.0), ("nearly", 2.02)):
        onnx.save(scale_model(factor), tmp_path / f"{name}.onnx")
        paths.append(str(tmp_path / f"{name}.onnx"))
    return paths[0], paths[1]


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Four requests whose outputs are twice the inputs."""
    steps = [{"x": [i + 1, -i]} for i in range(4)]
    expected = [{"y": [2 * value for value in step["x"]]} for step in steps]
    path = tmp_path / "data.json"
    path.write_text(json.dumps({"data": steps, "validation_data": expected}))
    return str(path)


@pytest.fixture
def run(capsys):
    return Program(capsys)


def test_right_answers_pass_in_this_process_and_in_batches(run, models, data):
    for batch in ("1", "2"):
        options = ("--input-data", data, "--validate", "-b", batch)
        code, out, _ = run("perf", models[0], *options, *QUICK, "--json")
        assert code == 0
        [level] = json.loads(out)["levels"]
        assert level["requests"] > 10
        assert level["errors"] == 0


def test_a_wrong_output_is_an_error_of_its_own_kind(run, models, data):
    Path(data).write_text(Path(data).read_text().replace('{"y": [6, -4]}', '{"y": [6, -5]}'))
    code, out, _ = run("perf", models[0], "--input-data", data, *QUICK, "--json")
    assert code == 0
    [level] = json.loads(out)["levels"]
    assert set(level["errors_by_kind"]) == {"wrong output"}
    share = level["errors"] / (level["errors"] + level["requests"])
    assert share == pytest.approx(1 / 4, abs=0.05)
    message = "first error: wrong output: request 3, output 'y' at [0, 1]: got -4, expected -5"
    assert message in level["notes"]


def test_a_tolerance_decides_and_a_file_is_not_checked_against_the_users_will(run, models, data):
    near = ("perf", models[1], "--input-data", data, *QUICK, "--json")
    code, _, err = run(*near)
    assert code == 4
    assert "errors is wrong output: request " in err
    for options in (("--validate-rtol", "0.02"), ("--validate-atol", "0.1"), ("--no-validate",)):
        code, out, _ = run(*near, *options)
        assert code == 0
        assert json.loads(out)["levels"][0]["errors"] == 0


def test_compare_counts_the_wrong_outputs_of_every_variant(run, models, data):
    Path(data).write_text(Path(data).read_text().replace('{"y": [6, -4]}', '{"y": [6, -5]}'))
    options = ("--input-data", data, "--validate-rtol", "0.02", *QUICK, "--json")
    code, out, _ = run("compare", *models, *options)
    assert code == 0
    for level in json.loads(out)["levels"]:
        assert set(level["errors_by_kind"]) == {"wrong output"}


@pytest.mark.server
def test_answers_are_checked_over_http_and_grpc_also_by_workers(run, triton, data):
    triton.serve("validated", scale_model(2.0), CONFIG)
    for protocol, url in (("http", triton.server.http_url), ("grpc", triton.server.grpc_url)):
        served = ("perf", "validated", "-u", url, "-i", protocol, "--input-data", data)
        load = ("--concurrency", "2", "--workers", "2", *QUICK, "--json")
        code, out, err = run(*served, *load)
        assert (code, err) == (0, "")
        [level] = json.loads(out)["levels"]
        assert level["requests"] > 10
        assert level["errors"] == 0
        wrong = Path(data).with_name(f"wrong-{protocol}.json")
        wrong.write_text(Path(data).read_text().replace('{"y": [6, -4]}', '{"y": [6, -5]}'))
        _, out, _ = run(*served[:-1], str(wrong), *load)
        [level] = json.loads(out)["levels"]
        assert set(level["errors_by_kind"]) == {"wrong output"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--validate",), "give one with --input-data"),
        (("--validate", "--input-data", "zero"), "give one with --input-data"),
        (("--validate-rtol", "1"), "give one with --input-data"),
        (("--validate-rtol", "-1"), "--validate-rtol must be 0 or more"),
        (("--validate-atol", "nan"), "--validate-atol must be 0 or more"),
        (("--no-validate", "--validate-atol", "1"), "are not for --no-validate"),
    ],
)
def test_validation_without_data_is_one_sentence(run, models, options, message):
    for command in (("perf", models[0]), ("compare", *models)):
        code, out, err = run(*command, *options)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1


def test_a_file_without_validation_data_is_one_sentence(run, models, data):
    Path(data).write_text(json.dumps({"data": json.loads(Path(data).read_text())["data"]}))
    code, _, err = run("perf", models[0], "--input-data", data, "--validate", *QUICK)
    assert code == 2
    assert f"{data}: has no validation_data" in err


@pytest.mark.server
@pytest.mark.parametrize(
    "options", [("--shared-memory", "system"), ("--sequence-length", "2")], ids=lambda o: o[0]
)
def test_answers_that_cannot_be_looked_into_are_one_sentence(run, triton, data, options):
    triton.serve("validated", scale_model(2.0), CONFIG)
    served = ("perf", "validated", "-u", triton.server.http_url, "--input-data", data)
    code, _, err = run(*served, *options, *QUICK)
    assert code == 2
    assert "--no-validate" in err
    assert err.count("\n") == 1
