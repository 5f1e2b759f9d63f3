"""Every way in which channels can be tied: all of what can be halved is halved, and exactly."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from trimton.core.errors import TransformError
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.prune import PruneSettings, prunable, prune
from trimton.transforms.prune import cut as cut_module
from trimton.transforms.prune.index_space import Axis
from trimton.transforms.prune.rewrites import Kept

NAMES = (
    "plain",
    "BatchNorm unfused",
    "residual",
    "residual + BatchNorm",
    "depthwise",
    "concat",
    "split + concat",
    "channel shuffle",
    "squeeze-excite",
    "grouped",
    "Conv-Flatten-Gemm",
    "ConvTranspose",
    "slice",
    "LSTM",
    "GRU",
    "MLP",
    "multi-head attention",
    "LayerNorm MLP",
    "U-Net with skips",
    "dense block",
    "inception block",
)


def test_every_topology_is_tested(topologies: ModuleType) -> None:
    assert tuple(topologies.TOPOLOGIES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_half_of_the_channels_are_cut_to_the_ideal(topologies: ModuleType, name: str) -> None:
    build = topologies.TOPOLOGIES[name]
    original, ideal = build(1.0), model_cost(build(0.5))
    _, report = prune(original, PruneSettings(ratio=0.5, multiple=1))
    assert report.after.parameters == ideal.parameters
    assert report.after.macs == ideal.macs


@pytest.mark.parametrize("ratio", [0.25, 0.75])
@pytest.mark.parametrize("name", NAMES)
def test_masked_equals_cut(topologies: ModuleType, checked_cut, name: str, ratio: float) -> None:
    checked_cut(topologies.TOPOLOGIES[name](1.0), ratio, is_exact="LayerNorm" not in name)


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_masked_equals_cut_in_whole_architectures(
    real_models: ModuleType, checked_cut, name: str
) -> None:
    original = real_models.light_model(name).model
    cut = checked_cut(original, 0.5)
    assert model_cost(cut.model).parameters < 0.4 * model_cost(original).parameters


@pytest.mark.parametrize("name", ["residual + BatchNorm", "multi-head attention"])
def test_half_precision_is_cut_and_proven(topologies: ModuleType, name: str) -> None:
    original = topologies.TOPOLOGIES[name](1.0)
    proto = ir.to_proto(original)
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    del proto.graph.value_info[:]
    _, report = prune(ir.from_proto(proto), PruneSettings(ratio=0.5, multiple=1))
    single = prune(original, PruneSettings(ratio=0.5, multiple=1))[1]
    assert report.after.parameters == single.after.parameters
    assert not [entry for entry in report.skipped if entry.what == "proof of the cut"]


def test_weights_that_callers_can_override_are_kept(topologies: ModuleType) -> None:
    model = topologies.TOPOLOGIES["MLP"](1.0)
    model.graph.inputs.append(model.graph.initializers["w0"])
    assert [group.name for group in prunable(model).groups] == ["MatMul_2"]


def test_a_wrong_cut_is_never_written(
    topologies: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_other_indices(weight: np.ndarray, axes: list[Axis], kept: Kept) -> np.ndarray:
        for axis in axes:
            flags = np.roll(kept.is_kept[axis.indices], axis.position)
            weight = np.compress(flags, weight, axis=axis.position)
        return weight

    monkeypatch.setattr(cut_module, "_sliced", of_other_indices)
    with pytest.raises(TransformError, match="the cut is wrong for this model"):
        prune(topologies.TOPOLOGIES["MLP"](1.0), PruneSettings(ratio=0.5))
