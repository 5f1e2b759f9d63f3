"""``trimton fuse`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import trimton
from onnx import TensorProto, helper, numpy_helper


def write_model(path: Path, *, normalised: bool = True) -> Path:
    """A Conv, with or without a BatchNormalization after it."""
    rng = np.random.default_rng(0)
    arrays = {"w": rng.standard_normal((4, 3, 3, 3))}
    nodes = [helper.make_node("Conv", ["x", "w"], ["h" if normalised else "y"])]
    if normalised:
        arrays |= {name: rng.uniform(0.5, 2, 4) for name in "gbmv"}
        nodes.append(helper.make_node("BatchNormalization", ["h", *"gbmv"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 6, 6])],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model.onnx")


def test_fuses_and_reports_for_machines(tmp_path: Path, model: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((4, 3, 8, 8), np.float32))
    done = trimton("fuse", model, tmp_path / "out.onnx", "--data", tmp_path / "data.npz", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["changed"] is True
    assert report["nodes"] == {"before": 2, "after": 1}
    assert report["parameters"] == {"before": 108 + 16, "after": 108 + 4}
    assert 0 < report["max_relative_difference"] < 1e-5
    assert {step["name"] for step in report["steps"]} == {"batch-normalization", "dead-code"}
    assert [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node] == ["Conv"]


def test_a_model_is_fused_in_place(model: Path) -> None:
    done = trimton("fuse", model, model)
    assert done.returncode == 0
    assert "folded BatchNormalization" in done.stdout
    assert len(onnx.load(model).graph.node) == 1
    assert [file.name for file in model.parent.iterdir()] == ["model.onnx"]


def test_nothing_to_fuse_is_said_and_written(tmp_path: Path) -> None:
    plain = write_model(tmp_path / "plain.onnx", normalised=False)
    done = trimton("fuse", plain, tmp_path / "out.onnx", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["changed"] is False
    assert (tmp_path / "out.onnx").exists()
    assert "fuse changes nothing" in trimton("fuse", plain, tmp_path / "out.onnx").stdout


def test_a_tolerance_that_cannot_be_held_fails_and_writes_nothing(
    tmp_path: Path, model: Path
) -> None:
    done = trimton("fuse", model, tmp_path / "out.onnx", "--tolerance", "0")
    assert done.returncode == 1
    assert done.stderr.startswith("trimton: the fused model differs from the original")
    assert not (tmp_path / "out.onnx").exists()


WRONG_DATA = {
    "missing input": {"z": np.ones((2, 3, 8, 8), np.float32)},
    "wrong shape": {"x": np.ones((2, 3, 8, 9), np.float32)},
    "wrong type": {"x": np.full((2, 3, 8, 8), "a")},
}


@pytest.mark.parametrize("wrong", WRONG_DATA)
def test_wrong_data_is_one_sentence_and_writes_nothing(
    tmp_path: Path, model: Path, wrong: str
) -> None:
    np.savez(tmp_path / "data.npz", **WRONG_DATA[wrong])
    done = trimton("fuse", model, tmp_path / "out.onnx", "--data", tmp_path / "data.npz")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "data.npz" in done.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_wrong_model_is_one_sentence_and_writes_nothing(tmp_path: Path, model: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("This is a poem.\n" * 40)
    (tmp_path / "cut.onnx").write_bytes(model.read_bytes()[:200])
    (tmp_path / "folder").mkdir()
    for name in ("nowhere.onnx", "empty.onnx", "text.onnx", "cut.onnx", "folder"):
        done = trimton("fuse", tmp_path / name, tmp_path / "out.onnx")
        assert done.returncode == 2, name
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith(f"trimton: {tmp_path / name}: ")
        assert not (tmp_path / "out.onnx").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, model: Path) -> None:
    done = trimton("fuse", model, model / "out.onnx")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_has_an_example() -> None:
    assert "Example: trimton fuse" in trimton("fuse", "--help").stdout
