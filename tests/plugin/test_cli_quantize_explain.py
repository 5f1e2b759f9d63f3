"""``trimton quantize --explain``: the page about one quantisation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimton.plugin.cli.main import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model of two layers, and samples."""
    rng = np.random.default_rng(2)
    weights = {
        "w": rng.standard_normal((16, 16)).astype(np.float32),
        "v": rng.standard_normal((16, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["hidden"], "first"),
        helper.make_node("Relu", ["hidden"], ["kept"], "relu"),
        helper.make_node("MatMul", ["kept", "v"], ["y"], "second"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=opset), tmp_path / "model.onnx")
    np.savez(tmp_path / "samples.npz", x=rng.standard_normal((32, 16)).astype(np.float32))
    return tmp_path


def quantise(folder: Path, page: Path, *more: str) -> int:
    words = ["quantize", folder / "model.onnx", folder / "int8.onnx"]
    options = ["--data", folder / "samples.npz", "--explain", page, *more]
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in (*words, *options)])
    return int(stopped.value.code or 0)


def test_the_page_shows_every_quantised_tensor(folder: Path) -> None:
    page = folder / "explained.html"
    assert quantise(folder, page) == 0
    text = page.read_text()
    assert "Quantisation of model" in text
    assert '<th scope="row" class="text">x</th>' in text
    assert '<th scope="row" class="text">kept</th>' in text
    assert "Most sensitive layers" not in text


def test_the_page_ranks_layers_where_some_were_asked_to_stay_in_float(folder: Path) -> None:
    page = folder / "explained.html"
    assert quantise(folder, page, "--min-sqnr-db", "500") == 0
    text = page.read_text()
    assert "Most sensitive layers of model" in text
    assert "what was asked for is out of reach" in text


def test_a_page_that_cannot_be_written_is_named_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = folder / "samples.npz" / "page.html"
    assert quantise(folder, blocked) == 2
    assert "page.html: cannot be written" in capsys.readouterr().err
    assert not (folder / "int8.onnx").exists()
