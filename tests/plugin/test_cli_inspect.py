"""``trimton inspect`` as a user meets it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import trimton
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """``y = Dropout(x W)`` and a string that passes through."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
            helper.make_node("Dropout", ["h"], ["d"]),
            helper.make_node("Relu", ["d"], ["y"]),
            helper.make_node("Identity", ["s"], ["t"]),
        ],
        "g",
        [value("x", TensorProto.FLOAT, ["batch", 3]), value("s", TensorProto.STRING, [None])],
        [value("y", TensorProto.FLOAT, ["batch", 4]), value("t", TensorProto.STRING, [None])],
        [numpy_helper.from_array(np.ones((3, 4), np.float32), "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made.producer_name = "tests"
    onnx.save(made, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_facts_for_machines(model: Path) -> None:
    done = trimton("inspect", model, "--dim", "batch=5", "--fuse", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts["opsets"] == {"": 17}
    assert facts["producer"] == "tests"
    assert facts["inputs"] == [
        {"name": "x", "type": "float32", "shape": ["batch", 3]},
        {"name": "s", "type": "string", "shape": [None]},
    ]
    assert facts["parameters"] == 12
    assert facts["macs"] == 60
    assert facts["size_bytes"] == pytest.approx(model.stat().st_size, abs=64)
    assert facts["operators"] == {"MatMul": 1, "Dropout": 1, "Relu": 1, "Identity": 1}
    assert facts["heaviest_nodes"] == [
        {"name": "product", "op_type": "MatMul", "macs": 60, "parameters": 12}
    ]
    assert facts["quantised_nodes"] == 0
    assert facts["fuse"]["nodes"] == {"before": 4, "after": 3}


def test_facts_for_people(model: Path) -> None:
    text = trimton("inspect", model, "--fuse").stdout
    assert "input   x  float32[batch, 3]" in text
    assert "12 multiply-accumulates" in text
    assert "quantised: no" in text
    assert "would leave 3 of 4 nodes" in text


def test_a_model_of_a_repository_is_its_latest_version(tmp_path: Path, model: Path) -> None:
    for version in ("1", "2", "10"):
        folder = tmp_path / "models" / "mine" / version
        folder.mkdir(parents=True)
        shutil.copy(model, folder / "model.onnx")
    facts = json.loads(trimton("inspect", tmp_path / "models" / "mine", "--json").stdout)
    assert facts["path"].endswith("models/mine/10/model.onnx")


def test_the_name_in_the_configuration_counts(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "models" / "mine"
    (folder / "1").mkdir(parents=True)
    shutil.copy(model, folder / "1" / "net.onnx")
    (folder / "config.pbtxt").write_text('default_model_filename: "net.onnx"')
    facts = json.loads(trimton("inspect", folder, "--json").stdout)
    assert facts["path"].endswith("models/mine/1/net.onnx")


@pytest.mark.parametrize("dim", ["batch", "batch=", "batch=x", "=3", "batch=0", "batch=-1"])
def test_wrong_dim_is_one_sentence(model: Path, dim: str) -> None:
    done = trimton("inspect", model, "--dim", dim)
    assert done.returncode == 2
    assert done.stderr.startswith(f"trimton: --dim {dim}: must be NAME=SIZE")


def test_missing_model_is_one_sentence(tmp_path: Path) -> None:
    done = trimton("inspect", tmp_path / "none.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no such file" in done.stderr


def test_help_has_an_example() -> None:
    assert "Example: trimton inspect" in trimton("inspect", "--help").stdout
