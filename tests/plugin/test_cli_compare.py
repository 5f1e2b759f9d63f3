"""``trimton compare``: differences that are there are found, others are not called a win."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import Program
from onnx import TensorProto, helper

QUICK = ("--rounds", "4", "--window", "0.1", "--warmup", "0.02")
CONFIG_ANY = 'backend: "onnxruntime"\nmax_batch_size: 8\n'
CONFIG = 'name: "classifier"\nbackend: "onnxruntime"\nmax_batch_size: 8\n'


def classifier(weights: np.ndarray, work: int = 0) -> onnx.ModelProto:
    """``scores = x @ weights`` for x [n, 4]; ``work`` multiplications by I come before."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])
    names = ["x", *(f"h{i}" for i in range(work))]
    nodes = [helper.make_node("MatMul", [names[i], "i"], [names[i + 1]]) for i in range(work)]
    nodes.append(helper.make_node("MatMul", [names[-1], "w"], ["scores"]))
    constants = [
        onnx.numpy_helper.from_array(weights.astype(np.float32), "w"),
        onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "i"),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


WEIGHTS = np.eye(4, 3)


@pytest.fixture
def models(tmp_path: Path) -> dict[str, str]:
    made = {
        "base": classifier(WEIGHTS),
        "same": classifier(WEIGHTS),
        "slow": classifier(WEIGHTS, work=400),
        "wrong": classifier(WEIGHTS[:, ::-1]),
        "other": onnx.ModelProto(),
    }
    made["other"].CopyFrom(made["base"])
    made["other"].graph.input[0].name = "z"
    made["other"].graph.node[0].input[0] = "z"
    for name, model in made.items():
        onnx.save(model, tmp_path / f"{name}.onnx")
    return {name: str(tmp_path / f"{name}.onnx") for name in made}


@pytest.fixture
def data(tmp_path: Path) -> str:
    labels = np.arange(60) % 3
    np.savez(tmp_path / "d.npz", x=np.eye(4, dtype=np.float32)[labels], labels=labels)
    return str(tmp_path / "d.npz")


@pytest.fixture
def run(capsys):
    return Program(capsys, ("compare",))


def test_a_slower_variant_is_worse_in_throughput_and_latency(run, models):
    code, out, err = run(models["base"], models["slow"], *QUICK, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert (document["baseline"], document["variants"]) == ("base", ["slow"])
    metrics = {metric["name"]: metric for metric in document["metrics"]}
    for name, worse_above_1 in (("throughput_rps@1", False), ("latency_p50_ms@1", True)):
        metric = metrics[name]
        assert metric["variant_name"] == "slow"
        assert metric["ratio"] == pytest.approx(metric["variant"] / metric["baseline"])
        assert (metric["ratio"] > 1) is worse_above_1
        assert metric["interval"][0] < metric["ratio"] < metric["interval"][1]
        assert metric["outcome"] == "worse"
    assert document["quality"] == []
    assert {level["variant_name"] for level in document["levels"]} == {"base", "slow"}


@pytest.mark.server
def test_variants_are_compared_at_each_of_several_rates(run, triton):
    triton.serve("rates_base", classifier(WEIGHTS), CONFIG_ANY)
    triton.serve("rates_slow", classifier(WEIGHTS, work=400), CONFIG_ANY)
    served = ("rates_base", "rates_slow", "-u", triton.server.http_url)
    rates = ("--request-rate", "60,150", "--request-distribution", "poisson")
    code, out, err = run(*served, *rates, "--rounds", "4", "--window", "0.4", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    metrics = {metric["name"]: metric for metric in document["metrics"]}
    assert {m["rate_rps"] for m in metrics.values()} == {60, 150}
    # Each rate has the latencies of its own windows.
    assert {m["name"] for m in metrics.values() if m["name"].startswith("latency_mean_ms")} == {
        "latency_mean_ms@60/s",
        "latency_mean_ms@150/s",
    }
    levels = [(level["variant_name"], level["rate_rps"]) for level in document["levels"]]
    assert sorted(levels) == [
        ("rates_base", 60),
        ("rates_base", 150),
        ("rates_slow", 60),
        ("rates_slow", 150),
    ]


def test_every_variant_is_compared_and_its_quality_told(run, models, data):
    code, out, _ = run(
        models["base"], models["same"], models["wrong"], *QUICK, "--data", data, "--json"
    )
    assert code == 0
    document = json.loads(out)
    assert {metric["variant_name"] for metric in document["metrics"]} == {"same", "wrong"}
    quality = {summary["variant"]: summary for summary in document["quality"]}
    assert quality["base"]["accuracy"]["value"] == 1
    assert quality["same"]["agreement"]["value"] == 1
    assert quality["same"]["sqnr_db"] is None
    assert quality["wrong"]["samples"] == 60
    # The columns in reverse: only the middle class stays where it was.
    assert quality["wrong"]["accuracy"]["value"] == pytest.approx(1 / 3)
    assert quality["wrong"]["accuracy_drop"]["value"] == pytest.approx(2 / 3)
    assert quality["wrong"]["agreement"]["value"] == pytest.approx(1 / 3)


def test_a_model_against_itself_keeps_both_apart(run, models):
    _, out, _ = run(models["base"], models["base"], *QUICK, "--json")
    document = json.loads(out)
    assert document["variants"] == ["base (2)"]
    assert len(document["levels"]) == 2


def test_the_tables_name_variants_metrics_and_outcomes(run, models, data):
    code, out, _ = run(models["base"], models["slow"], *QUICK, "--data", data)
    assert code == 0
    assert "slow against base" in out
    assert any("throughput_rps@1" in line and "worse" in line for line in out.splitlines())
    assert "identical" in out


def test_it_stops_as_soon_as_the_answer_is_clear(run, models):
    code, out, _ = run(
        models["base"], models["slow"], "--window", "0.1", "--warmup", "0.02", "--json"
    )
    assert code == 0
    document = json.loads(out)
    assert document["stopped"] == "clear"
    assert document["rounds"] < 30
    assert document["asked"] == ["throughput_rps", "latency_p95_ms"]
    asked = [m for m in document["metrics"] if m["name"].partition("@")[0] in document["asked"]]
    assert [metric["outcome"] for metric in asked] == ["worse", "worse"]
    assert {level["rounds"] for level in document["levels"]} == {document["rounds"]}


def test_a_spent_budget_ends_it_without_a_winner(run, models):
    _, out, _ = run(
        *(models["base"], models["same"], "--window", "0.1", "--warmup", "0"),
        *("--budget", "0.5", "--margin", "0"),
    )
    assert "0 of 2 answers for throughput_rps and latency_p95_ms are clear" in out
    assert "a larger --budget" in out


def test_a_model_against_itself_tells_what_noise_would_hide(run, models):
    code, out, _ = run(
        models["base"],
        "--aa",
        "--max-rounds",
        "6",
        "--window",
        "0.1",
        "--metric",
        "throughput_rps",
        "--margin",
        "0",
        "--json",
    )
    assert code == 0
    document = json.loads(out)
    assert (document["aa"], document["variants"]) == (True, ["base (2)"])
    assert (document["stopped"], document["rounds"]) == ("rounds", 6)
    [throughput] = [m for m in document["metrics"] if m["name"] == "throughput_rps@1"]
    assert throughput["detectable_pct"] > 0


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["base"], [], "at least one variant"),
        (["base", "same"], ["--aa"], "--aa compares one model with itself"),
        (["base", "same"], ["--budget", "9"], "--rounds fixes how much is measured"),
        (["base", "other"], [], "takes other inputs"),
        (["base", "same"], ["--margin", "-1"], "--margin is a percentage"),
        (["base", "same"], ["--output", "scores"], "--output is for --data"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(run, models, names, options, message):
    code, out, err = run(*(models[name] for name in names), *QUICK, *options)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_an_output_that_is_not_there_is_one_sentence(run, models, data):
    code, _, err = run(models["base"], models["same"], *QUICK, "--data", data, "--output", "logits")
    assert code == 2
    assert "no output 'logits' (outputs: scores)" in err


def write_folder(folder: Path, model: onnx.ModelProto, config: str) -> Path:
    (folder / "1").mkdir(parents=True)
    onnx.save(model, folder / "1" / "model.onnx")
    (folder / "config.pbtxt").write_text(config)
    return folder


def test_files_and_folders_are_not_mixed(run, models, tmp_path):
    folder = write_folder(tmp_path / "r" / "classifier", classifier(WEIGHTS), CONFIG)
    code, _, err = run(models["base"], str(folder), *QUICK)
    assert code == 2
    assert "either .onnx files or model folders" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-rounds", "0"], "--max-rounds must be at least 1, not 0"),
        (["--budget", "-3"], "--budget must be more than 0 s, not -3"),
        (["--protocol", "grpc"], "--protocol is for models on a server"),
        (["--tls"], "--tls is for a server at --url"),
        (["--metrics-url", "localhost:8002"], "--metrics-url is for a server at --url"),
        (["--url", "localhost:1", "--metrics-url", "a b:c"], "'a b:c' is no server address"),
        (["--metric", "speed"], "--metric speed is none of throughput_rps, latency_mean_ms"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(run, models, options, message):
    code, out, err = run(models["base"], models["same"], *options)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.server
def test_folders_of_the_same_name_in_two_repositories_are_served_side_by_side(
    run, tmp_path, data, installation
):
    folders = [
        write_folder(tmp_path / name / "classifier", classifier(weights), CONFIG)
        for name, weights in (("a", WEIGHTS), ("b", WEIGHTS[:, ::-1]))
    ]
    code, out, _ = run(*map(str, folders), *QUICK, "--data", data, "--json")
    assert code == 0
    document = json.loads(out)
    assert document["server"]["name"] == "triton"
    assert document["baseline"] == str(folders[0])
    assert document["variants"] == [str(folders[1])]
    accuracy = [summary["accuracy"]["value"] for summary in document["quality"]]
    assert accuracy == pytest.approx([1, 1 / 3])
    names = {metric["name"] for metric in document["metrics"]}
    assert {"throughput_rps@1", "latency_p50_ms@1", "cpu_ms_per_inference@1"} <= names


@pytest.mark.server
def test_models_on_a_server_are_compared_over_grpc_and_its_metrics_are_read(run, shared_triton):
    code, out, _ = run(
        *("probe", "probe", "--url", shared_triton.server.grpc_url, "--protocol", "grpc"),
        *("--metrics-url", shared_triton.server.metrics_url, *QUICK, "--json"),
    )
    assert code == 0
    document = json.loads(out)
    assert document["variants"] == ["probe (2)"]
    for level in document["levels"]:
        assert level["server_metrics"]["counters"]["nv_inference_count"] >= level["requests"]
        assert level["missing"].keys() >= {"cpu", "memory", "energy"}
        assert "metrics" not in level["missing"]
