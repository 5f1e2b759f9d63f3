"""The digest: the same contents give the same digest, any other contents another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.graph.digest import model_digest
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.save import save_model
from trimton.transforms.graph.shapes import infer_shapes

GRAPH = """g (float[N,3,8,8] x, float[4,3,3,3] w) => (float[N,4,6,6] y)
{ c = Conv <strides = [1, 1], pads = [0, 0, 0, 0]> (x, w)
  y = Relu(c) }"""


@pytest.fixture
def model(make_model: Callable[..., ir.Model]) -> ir.Model:
    return make_model(GRAPH, w=np.arange(108, dtype=np.float32).reshape(4, 3, 3, 3))


def test_independent_of_storage_names_texts_and_annotations(
    tmp_path: Path, model: ir.Model
) -> None:
    model.metadata_props.update({"a": "1", "b": "2"})
    expected = model_digest(model)
    save_model(model, tmp_path / "one.onnx")
    save_model(model, tmp_path / "two.onnx", external_data=True)
    assert model_digest(load_model(tmp_path / "one.onnx")) == expected
    assert model_digest(load_model(tmp_path / "two.onnx")) == expected
    model.doc_string = "words"
    model.producer_name = "someone"
    model.graph.node(0).name = "renamed"
    model.graph.node(0).doc_string = "words"
    attributes = list(model.graph.node(0).attributes.values())
    model.graph.node(0).attributes.clear()
    for attribute in reversed(attributes):
        model.graph.node(0).attributes.add(attribute)
    model.metadata_props.clear()
    model.metadata_props.update({"b": "2", "a": "1"})
    infer_shapes(model)
    assert model_digest(model) == expected


def _weight(model: ir.Model) -> None:
    value = model.graph.initializers["w"]
    array = value.const_value.numpy().copy()
    array[0, 0, 0, 0] += 1e-6
    value.const_value = ir.tensor(array)


def _attribute(model: ir.Model) -> None:
    model.graph.node(0).attributes["strides"] = ir.AttrInt64s("strides", [1, 2])


def _operator(model: ir.Model) -> None:
    model.graph.node(1).op_type = "Tanh"


def _opset(model: ir.Model) -> None:
    model.graph.opset_imports[""] = 18


def _metadata(model: ir.Model) -> None:
    model.metadata_props["labels"] = "cat,dog"


def _interface(model: ir.Model) -> None:
    model.graph.inputs[0].name = "image"


def _shape(model: ir.Model) -> None:
    model.graph.inputs[0].shape = ir.Shape([1, 3, 8, 8])


@pytest.mark.parametrize(
    "change", [_weight, _attribute, _operator, _opset, _metadata, _interface, _shape]
)
def test_dependent_on_contents(model: ir.Model, change: Callable[[ir.Model], None]) -> None:
    before = model_digest(model)
    change(model)
    assert model_digest(model) != before
