"""``trimton prune`` and ``trimton inspect --prunable`` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import trimton
from onnx import TensorProto, helper, numpy_helper

from trimton.transforms.prune.allocation import ALLOCATIONS
from trimton.transforms.prune.importance import CRITERIA


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Conv (32 channels), Relu, Conv (16 channels), Relu, Conv (2 channels, the output)."""
    rng = np.random.default_rng(0)
    shapes = {"a": (32, 3, 3, 3), "b": (16, 32, 3, 3), "c": (2, 16, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["i"]),
        helper.make_node("Conv", ["i", "b"], ["j"], name="second"),
        helper.make_node("Relu", ["j"], ["k"]),
        helper.make_node("Conv", ["k", "c"], ["y"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, 4, 4])],
        [
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
            for name, shape in shapes.items()
        ],
    )
    path = tmp_path / "model.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_prunes_and_reports_for_machines(tmp_path: Path, model: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((4, 3, 8, 8), np.float32))
    done = trimton(
        "prune", model, tmp_path / "out.onnx", "--ratio", 0.5, "--importance", "activation",
        "--multiple", 8,
        "--data", tmp_path / "data.npz", "--json",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["transform"] == "prune"
    assert report["changed"] is True
    before, after = 32 * 27 + 16 * 288 + 32, 16 * 27 + 8 * 144 + 16
    folded = 8 + 2  # the biases that what was removed goes into
    assert report["parameters"] == {"before": before, "after": after + folded}
    cuts = [step for step in report["steps"] if step["name"] == "cut"]
    assert [cut["detail"]["group"] for cut in cuts] == ["first", "second"]
    assert [cut["detail"]["channels"] for cut in cuts] == [
        {"before": 32, "after": 16},
        {"before": 16, "after": 8},
    ]
    assert report["skipped"] == [{"what": "last", "why": "it is an output of the model"}]
    shapes = {t.name: list(t.dims) for t in onnx.load(tmp_path / "out.onnx").graph.initializer}
    assert shapes["b"] == [8, 16, 3, 3]


def test_tells_people_what_was_cut(tmp_path: Path, model: Path) -> None:
    done = trimton("prune", model, tmp_path / "out.onnx", "--ratio", 0.5, "--multiple", 8)
    assert done.returncode == 0
    assert "channels of first removed, 16 of 32 kept" in done.stdout
    assert "it is an output of the model" in done.stdout


def test_a_limited_request_says_so(tmp_path: Path, model: Path) -> None:
    done = trimton("prune", model, tmp_path / "o.onnx", "--ratio", 0.999, "--multiple", 1, "--json")
    assert done.returncode == 0
    whys = [entry["why"] for entry in json.loads(done.stdout)["skipped"]]
    assert sum("at least 1 of its channels must stay" in why for why in whys) == 2


def test_kept_counts_follow_multiple_and_exclusions(tmp_path: Path, model: Path) -> None:
    done = trimton(
        "prune", model, tmp_path / "out.onnx", "--ratio", 0.7, "--multiple", 16,
        "--exclude", "sec*", "--json",
    )  # fmt: skip
    assert done.returncode == 0
    shapes = {t.name: list(t.dims) for t in onnx.load(tmp_path / "out.onnx").graph.initializer}
    assert shapes["b"] == [16, 16, 3, 3]


def quantised(path: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    result = path.with_name("int8.onnx")
    quantize_dynamic(path, result, weight_type=QuantType.QUInt8)
    return result


WRONG = {
    "ratio too large": (["--ratio", "1"], "ratio 1: must lie between 0 and 1"),
    "ratio negative": (["--ratio=-0.1"], "ratio -0.1: must lie between 0 and 1"),
    "unknown importance": (["--ratio", "0.5", "--importance", "best"], "choose l1, l2"),
    "unknown allocation": (["--ratio", "0.5", "--allocation", "best"], "choose uniform, global"),
    "activation without data": (["--ratio", "0.5", "--importance", "activation"], "give --data"),
    "exclusion of nothing": (["--ratio", "0.5", "--exclude", "nowhere"], "excludes no layer"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_use_is_one_sentence_and_writes_nothing(
    tmp_path: Path, model: Path, wrong: str
) -> None:
    options, expected = WRONG[wrong]
    done = trimton("prune", model, tmp_path / "out.onnx", *options)
    assert done.returncode == 2
    assert done.stderr.startswith("trimton: ")
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_a_quantised_model_is_refused(tmp_path: Path, model: Path) -> None:
    int8 = quantised(model)
    for arguments in (
        ("prune", int8, tmp_path / "out.onnx", "--ratio", 0.5),
        ("inspect", int8, "--prunable"),
    ):
        done = trimton(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith(f"trimton: {int8}: the model is already quantised")
        assert done.stderr.count("\n") == 1


def test_a_model_without_groups_is_refused_with_the_reason(tmp_path: Path, model: Path) -> None:
    one = tmp_path / "one.onnx"
    onnx.utils.extract_model(str(model), str(one), ["x"], ["h"])
    done = trimton("prune", one, tmp_path / "out.onnx", "--ratio", 0.5)
    assert done.returncode == 2
    assert done.stderr.startswith(f"trimton: {one}: nothing in the model can be pruned")
    assert "it is an output of the model" in done.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_data_of_a_wrong_shape_is_one_sentence(tmp_path: Path, model: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((4, 3, 8, 9), np.float32))
    done = trimton(
        "prune", model, tmp_path / "out.onnx", "--ratio", 0.5, "--data", tmp_path / "data.npz"
    )
    assert done.returncode == 2
    assert "data.npz: array 'x' has shape (4, 3, 8, 9)" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_names_every_criterion_and_allocation() -> None:
    text = trimton("prune", "--help").stdout
    assert "Example: trimton prune" in text
    words = text.replace("│", " ").split()
    for name in (*CRITERIA, *ALLOCATIONS):
        assert any(name == word.strip(",:;.") for word in words), name


def test_inspect_shows_groups_and_reasons(model: Path) -> None:
    done = trimton("inspect", model, "--prunable", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)["prunable"]
    assert [(g["name"], g["channels"], g["channels_at_once"]) for g in found["groups"]] == [
        ("first", 32, 1),
        ("second", 16, 1),
    ]
    assert found["groups"][0]["parameters"] == 32 * 27 + 16 * 288
    assert found["groups"][0]["macs"] == 36 * 32 * 27 + 16 * 16 * 288
    assert found["frozen"] == [
        {"name": "last", "channels": 2, "why": "it is an output of the model"}
    ]
    text = trimton("inspect", model, "--prunable").stdout
    assert "removable channels of" in text
    assert "kept: last (2 channels), because it is an output of the model" in text
