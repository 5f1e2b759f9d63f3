"""Loading: every form of ONNX file comes out alike, every wrong file is one sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.graph.digest import model_digest
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.probe import random_probes

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def proto(
    *, opset: int = 13, ir_version: int = 8, weight_in: str = "initializer"
) -> onnx.ModelProto:
    """``y = x W`` with W stored as asked: initializer, input (both), or node (Constant)."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
    w = helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    tensor = numpy_helper.from_array(WEIGHT, "w")
    if weight_in == "node":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    graph = helper.make_graph(
        nodes,
        "g",
        [x, w] if weight_in == "input" else [x],
        [y],
        [] if weight_in == "node" else [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir_version
    return model


@pytest.mark.parametrize("opset", [7, 9, 13, 21, onnx.defs.onnx_opset_version()])
def test_every_operator_set_from_7_loads(tmp_path: Path, opset: int) -> None:
    onnx.save(proto(opset=opset), tmp_path / "m.onnx")
    assert load_model(tmp_path / "m.onnx").opset_imports[""] == opset


def test_older_operator_set_is_refused_with_a_way_out(tmp_path: Path) -> None:
    onnx.save(proto(opset=6), tmp_path / "m.onnx")
    with pytest.raises(UnsupportedModelError, match=r"operator set 6.*7 or newer"):
        load_model(tmp_path / "m.onnx")


def test_weights_are_initializers_wherever_they_were(tmp_path: Path) -> None:
    digests = set()
    for place, ir_version in (("initializer", 8), ("input", 3), ("node", 8)):
        path = tmp_path / f"{place}.onnx"
        onnx.save(proto(weight_in=place, ir_version=ir_version), path)
        model = load_model(path)
        assert [value.name for value in model.graph.inputs] == ["x"]
        assert np.array_equal(model.graph.initializers["w"].const_value.numpy(), WEIGHT)
        assert model.ir_version >= 4
        digests.add(model_digest(model))
    assert len(digests) == 1


def test_inputs_with_defaults_stay_when_asked(tmp_path: Path) -> None:
    onnx.save(proto(weight_in="input", ir_version=3), tmp_path / "m.onnx")
    model = load_model(tmp_path / "m.onnx", keep_default_inputs=True)
    assert [value.name for value in model.graph.inputs] == ["x", "w"]
    assert model.ir_version == 3


def test_folder_with_model_and_data_loads(tmp_path: Path) -> None:
    folder = tmp_path / "model.onnx"
    folder.mkdir()
    save_external(proto(), folder / "model.onnx", "weights.bin")
    model = load_model(folder)
    assert np.array_equal(model.graph.initializers["w"].const_value.numpy(), WEIGHT)


def test_constants_in_branches_become_weights_of_the_branch(tmp_path: Path) -> None:
    onnx.save(branching(), tmp_path / "m.onnx")
    model = load_model(tmp_path / "m.onnx")
    assert "Constant" not in {node.op_type for node in model.graph.all_nodes()}
    assert sum(len(graph.initializers) for graph in model.graphs()) == 2


def test_minus_one_in_a_shape_is_a_free_dimension(tmp_path: Path) -> None:
    wrong = proto()
    wrong.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(wrong, tmp_path / "m.onnx")
    model = load_model(tmp_path / "m.onnx")
    assert not isinstance(model.graph.inputs[0].shape[0], int)
    assert random_probes(model)


def test_model_functions_are_inlined(tmp_path: Path) -> None:
    model = proto()
    twice = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 13)],
    )  # fmt: skip
    model.functions.append(twice)
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[0].output[0] = "half"
    model.graph.node.append(helper.make_node("Twice", ["half"], ["y"], domain="own"))
    onnx.save(model, tmp_path / "m.onnx")
    loaded = load_model(tmp_path / "m.onnx")
    assert [node.op_type for node in loaded.graph] == ["MatMul", "Add"]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"m\.onnx: no such file"):
        load_model(tmp_path / "m.onnx")


def test_folder_without_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder without model\.onnx"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello\n" * 100, "is no ONNX model"),
        (b"ir_version: 8\n", "is no ONNX model"),
        (b"\x08\x08", "no complete ONNX graph"),
        (bytes(range(256)), "is no ONNX model"),
    ],
)
def test_file_that_is_no_model(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_model(tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = proto().SerializeToString()
    for length in range(len(whole)):
        (tmp_path / "m.onnx").write_bytes(whole[:length])
        with pytest.raises(InputError):
            load_model(tmp_path / "m.onnx")


def test_what_the_checker_rejects_is_refused_with_its_reason(tmp_path: Path) -> None:
    wrong = proto()
    wrong.graph.node[0].input[1] = "nowhere"
    onnx.save(wrong, tmp_path / "m.onnx")
    with pytest.raises(InputError, match=r"checker rejects it: .*nowhere"):
        load_model(tmp_path / "m.onnx")


def save_external(model: onnx.ModelProto, path: Path, location: str) -> None:
    """Save with all weights in ``location`` beside ``path``."""
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_data_files_may_be_links_as_caches_store_them(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "model").mkdir()
    save_external(proto(), tmp_path / "cache" / "m.onnx", "m.data")
    for name in ("m.onnx", "m.data"):
        link(tmp_path / "cache" / name, tmp_path / "model" / name)
    model = load_model(tmp_path / "model" / "m.onnx")
    assert np.array_equal(model.graph.initializers["w"].const_value.numpy(), WEIGHT)


def test_missing_data_file(tmp_path: Path) -> None:
    save_external(proto(), tmp_path / "m.onnx", "m.data")
    (tmp_path / "m.data").unlink()
    with pytest.raises(InputError, match=r"m\.onnx: stores weights in 'm\.data', which is missing"):
        load_model(tmp_path / "m.onnx")


def test_short_data_file(tmp_path: Path) -> None:
    save_external(proto(), tmp_path / "m.onnx", "m.data")
    (tmp_path / "m.data").write_bytes(b"1234")
    with pytest.raises(InputError, match=r"'m\.data' has 4 bytes, but weight 'w' ends at byte 48"):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize("location", ["../m.data", "/tmp/m.data"])
def test_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    save_external(proto(), folder / "m.onnx", "m.data")
    model = onnx.load(folder / "m.onnx", load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="outside its own folder"):
        load_model(folder / "m.onnx")


def branching() -> onnx.ModelProto:
    """An If with a Constant in each branch."""
    branches = {
        key: helper.make_graph(
            [
                helper.make_node("Constant", [], [f"{key}_c"], value_floats=[value]),
                helper.make_node("Add", ["x", f"{key}_c"], [f"{key}_y"]),
            ],
            key,
            [],
            [helper.make_tensor_value_info(f"{key}_y", TensorProto.FLOAT, None)],
        )
        for key, value in (("then_branch", 1.0), ("else_branch", 2.0))
    }
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], **branches)],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
