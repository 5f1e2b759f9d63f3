"""Saving: the file is whole and valid, or what stood there is untouched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from trimton.core.errors import InputError, TransformError
from trimton.transforms.graph import save, session
from trimton.transforms.graph.cost import size_bytes
from trimton.transforms.graph.digest import model_digest
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.save import save_model

GRAPH = "g (float[N,3] x, float[3,4] w) => (float[N,4] y) { y = MatMul(x, w) }"


@pytest.fixture
def model(make_model: Callable[..., ir.Model]) -> ir.Model:
    return make_model(GRAPH, w=np.ones((3, 4), np.float32))


def other(make_model: Callable[..., ir.Model]) -> ir.Model:
    return make_model(GRAPH, w=np.full((3, 4), 2, np.float32))


def test_saved_model_is_the_same_model(tmp_path: Path, model: ir.Model) -> None:
    save_model(model, tmp_path / "new" / "m.onnx")
    assert model_digest(load_model(tmp_path / "new" / "m.onnx")) == model_digest(model)
    assert size_bytes(model) == (tmp_path / "new" / "m.onnx").stat().st_size


def test_external_data_lies_beside_and_only_the_current_one(
    tmp_path: Path, model: ir.Model, make_model: Callable[..., ir.Model]
) -> None:
    path = tmp_path / "m.onnx"
    stranger = tmp_path / "m.other.data"
    stranger.write_bytes(b"not ours")
    save_model(model, path, external_data=True)
    (first,) = tmp_path.glob("m.????????????????.data")
    save_model(other(make_model), path, external_data=True)
    (second,) = tmp_path.glob("m.????????????????.data")
    assert first != second
    assert load_model(path).graph.initializers["w"].const_value.numpy()[0, 0] == 2
    save_model(model, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.other.data"]


def test_model_can_be_saved_over_its_own_data(tmp_path: Path, model: ir.Model) -> None:
    path = tmp_path / "m.onnx"
    save_model(model, path, external_data=True)
    loaded = load_model(path)
    save_model(loaded, path, external_data=True)
    save_model(loaded, path)
    assert model_digest(load_model(path)) == model_digest(model)


def test_folder_is_replaced_as_a_whole(tmp_path: Path, model: ir.Model) -> None:
    folder = tmp_path / "model.onnx"
    folder.mkdir()
    (folder / "stale.data").write_bytes(b"1")
    save_model(model, folder, external_data=True)
    names = sorted(file.name for file in folder.iterdir())
    assert names[1] == "model.onnx"
    assert len(names) == 2
    assert model_digest(load_model(folder)) == model_digest(model)


def test_models_beyond_the_limit_of_one_file_get_external_data(
    tmp_path: Path, model: ir.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = size_bytes(model)
    for module in (save, session):
        monkeypatch.setattr(module, "MAX_EMBEDDED_BYTES", 40)
    monkeypatch.setattr("trimton.transforms.graph.cost.MAX_EMBEDDED_BYTES", 40)
    save_model(model, tmp_path / "m.onnx")
    assert len(list(tmp_path.iterdir())) == 2
    assert model_digest(load_model(tmp_path / "m.onnx")) == model_digest(model)
    assert session.open_session(model).get_inputs()[0].name == "x"
    assert size_bytes(model) == pytest.approx(embedded, abs=64)


def test_any_other_folder_is_never_touched(tmp_path: Path, model: ir.Model) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "novel.txt").write_text("chapter 1")
    with pytest.raises(InputError, match=r"documents: is a folder; name the \.onnx file"):
        save_model(model, folder)
    assert [file.name for file in folder.iterdir()] == ["novel.txt"]


@pytest.mark.parametrize("external_data", [False, True])
def test_invalid_model_leaves_everything_as_it_was(
    tmp_path: Path, model: ir.Model, external_data: bool
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"before")
    model.graph.node(0).op_type = "NoSuchOperator"
    with pytest.raises(TransformError, match="not valid ONNX"):
        save_model(model, path, external_data=external_data)
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_model_that_the_runtime_refuses_is_not_saved(tmp_path: Path, model: ir.Model) -> None:
    node = model.graph.node(0)
    node.op_type, node.domain = "NoSuchOperator", "com.microsoft"
    model.graph.opset_imports["com.microsoft"] = 1
    with pytest.raises(TransformError, match="refused by ONNX Runtime"):
        save_model(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_custom_operators_are_saved_unseen(tmp_path: Path, model: ir.Model) -> None:
    node = model.graph.node(0)
    node.op_type, node.domain = "TheirOperator", "their.domain"
    model.graph.opset_imports["their.domain"] = 1
    save_model(model, tmp_path / "m.onnx")
    assert load_model(tmp_path / "m.onnx").graph.node(0).domain == "their.domain"
