"""Small networks, one for each way in which channels can be tied, at any width.

``TOPOLOGIES[name](1.0)`` is the network, ``TOPOLOGIES[name](0.5)`` what uniform halving of its
inner channels would leave at best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

SIDE = 8
CLASSES = 10


class Net:
    """Writes a network node by node; ``width`` scales every inner number of channels."""

    def __init__(self, width: float, *, seed: int = 0) -> None:
        self.width = width
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def inner(self, channels: int) -> int:
        """``channels`` at this width."""
        return int(channels * self.width)

    def weight(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def floats(self, *shape: int) -> str:
        """Random weights, as large as He et al. (2015) want them."""
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 100
        array = self.rng.standard_normal(shape) * np.sqrt(2 / fan_in)
        return self.weight(array.astype(np.float32))

    def integers(self, *numbers: int) -> str:
        return self.weight(np.array(numbers, np.int64))

    def node(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        number = len(self.nodes)
        names = [f"v{number}" if n == 0 else f"v{number}_{n}" for n in range(outputs)]
        name = f"{op_type}_{number}"
        self.nodes.append(helper.make_node(op_type, inputs, names, name=name, **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x: str, cin: int, cout: int, kernel: int = 3, group: int = 1) -> str:
        return str(
            self.node(
                "Conv", x, self.floats(cout, cin // group, kernel, kernel), self.floats(cout),
                group=group, pads=[kernel // 2] * 4,
            )
        )  # fmt: skip

    def norm(self, x: str, channels: int) -> str:
        values = [self.rng.uniform(0.5, 1.5, channels).astype(np.float32) for _ in range(4)]
        return str(self.node("BatchNormalization", x, *map(self.weight, values)))

    def relu(self, x: str) -> str:
        return str(self.node("Relu", x))

    def dense(self, x: str, cin: int, cout: int) -> str:
        """MatMul and Add."""
        product = self.node("MatMul", x, self.weight(self._matrix(cin, cout)))
        return str(self.node("Add", product, self.floats(cout)))

    def gemm(self, x: str, cin: int, cout: int) -> str:
        return str(self.node("Gemm", x, self.floats(cout, cin), self.floats(cout), transB=1))

    def _matrix(self, cin: int, cout: int) -> np.ndarray:
        return (self.rng.standard_normal((cin, cout)) * np.sqrt(2 / cin)).astype(np.float32)

    def head(self, x: str, channels: int) -> str:
        """Global pooling and a classifier."""
        return self.gemm(self.node("Flatten", self.node("GlobalAveragePool", x)), channels, CLASSES)

    def model(self, output: str, shape: list[str | int] | None = None) -> ir.Model:
        """The network from ``x`` (images, if no shape is given) to ``output``."""
        dims = ["N", 3, SIDE, SIDE] if shape is None else shape
        graph = helper.make_graph(
            self.nodes,
            "topology",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.weights,
        )
        opset = [helper.make_opsetid("", 17)]
        proto = helper.make_model(graph, opset_imports=opset, ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(proto)
        onnx.checker.check_model(inferred)
        return ir.from_proto(inferred)


def plain(width: float) -> ir.Model:
    net = Net(width)
    a, b = net.inner(32), net.inner(64)
    x = net.relu(net.conv("x", 3, a))
    x = net.relu(net.conv(x, a, b))
    x = net.relu(net.conv(x, b, b))
    return net.model(net.head(x, b))


def batchnorm(width: float) -> ir.Model:
    net = Net(width)
    a, b = net.inner(32), net.inner(64)
    x = net.relu(net.norm(net.conv("x", 3, a), a))
    x = net.relu(net.norm(net.conv(x, a, b), b))
    x = net.relu(net.norm(net.conv(x, b, b), b))
    return net.model(net.head(x, b))


def residual(width: float) -> ir.Model:
    net = Net(width)
    a = net.inner(32)
    x = net.relu(net.conv("x", 3, a))
    for _ in range(2):
        y = net.conv(net.relu(net.conv(x, a, a)), a, a)
        x = net.relu(net.node("Add", x, y))
    return net.model(net.head(x, a))


def residual_batchnorm(width: float) -> ir.Model:
    net = Net(width)
    a = net.inner(32)
    x = net.relu(net.norm(net.conv("x", 3, a), a))
    for _ in range(2):
        y = net.relu(net.norm(net.conv(x, a, a), a))
        y = net.norm(net.conv(y, a, a), a)
        x = net.relu(net.node("Add", x, y))
    return net.model(net.head(x, a))


def depthwise(width: float) -> ir.Model:
    net = Net(width)
    a, b = net.inner(32), net.inner(64)
    x = net.relu(net.norm(net.conv("x", 3, a), a))
    for cin, cout in ((a, b), (b, b)):
        x = net.relu(net.norm(net.conv(x, cin, cin, group=cin), cin))
        x = net.relu(net.norm(net.conv(x, cin, cout, kernel=1), cout))
    return net.model(net.head(x, b))


def concat(width: float) -> ir.Model:
    net = Net(width)
    a, b = net.inner(32), net.inner(48)
    x = net.relu(net.conv("x", 3, a))
    y = net.node("Concat", net.conv(x, a, a), net.conv(x, a, b, kernel=1), axis=1)
    x = net.relu(net.conv(net.relu(y), a + b, b))
    return net.model(net.head(x, b))


def split_concat(width: float) -> ir.Model:
    net = Net(width)
    a = net.inner(32)
    x = net.relu(net.conv("x", 3, 2 * a))
    left, right = net.node("Split", x, net.integers(a, a), outputs=2, axis=1)
    y = net.node("Concat", left, net.relu(net.conv(right, a, a)), axis=1)
    x = net.relu(net.conv(y, 2 * a, 2 * a))
    return net.model(net.head(x, 2 * a))


def channel_shuffle(width: float) -> ir.Model:
    net = Net(width)
    a, groups = net.inner(64), 4
    x = net.relu(net.conv("x", 3, a))
    x = net.conv(x, a, a, kernel=1, group=groups)
    x = net.node("Reshape", x, net.integers(0, groups, a // groups, SIDE, SIDE))
    x = net.node("Transpose", x, perm=[0, 2, 1, 3, 4])
    x = net.node("Reshape", x, net.integers(0, a, SIDE, SIDE))
    x = net.relu(net.conv(x, a, a, group=a))
    x = net.relu(net.conv(x, a, a, kernel=1, group=groups))
    return net.model(net.head(x, a))


def squeeze_excite(width: float) -> ir.Model:
    net = Net(width)
    a, b = net.inner(64), net.inner(16)
    x = net.relu(net.norm(net.conv("x", 3, a), a))
    gate = net.node("GlobalAveragePool", x)
    gate = net.relu(net.conv(gate, a, b, kernel=1))
    gate = net.node("Sigmoid", net.conv(gate, b, a, kernel=1))
    x = net.relu(net.conv(net.node("Mul", x, gate), a, a))
    return net.model(net.head(x, a))


def grouped(width: float) -> ir.Model:
    net = Net(width)
    a = net.inner(64)
    x = net.relu(net.conv("x", 3, a))
    x = net.relu(net.conv(x, a, a, group=4))
    x = net.relu(net.conv(x, a, a, kernel=1))
    return net.model(net.head(x, a))


def flatten_gemm(width: float) -> ir.Model:
    net = Net(width)
    a, b, c = net.inner(16), net.inner(32), net.inner(64)
    x = net.relu(net.conv("x", 3, a))
    x = net.node("MaxPool", net.relu(net.conv(x, a, b)), kernel_shape=[2, 2], strides=[2, 2])
    x = net.relu(net.gemm(net.node("Flatten", x), b * (SIDE // 2) ** 2, c))
    return net.model(net.gemm(x, c, CLASSES))


def conv_transpose(width: float) -> ir.Model:
    net = Net(width)
    a, b = net.inner(32), net.inner(64)
    x = net.relu(net.conv("x", 3, b))
    x = net.node("ConvTranspose", x, net.floats(b, a, 2, 2), net.floats(a), strides=[2, 2])
    x = net.relu(net.conv(net.relu(x), a, a))
    return net.model(net.conv(x, a, 1, kernel=1))


def slice_channels(width: float) -> ir.Model:
    net = Net(width)
    a = net.inner(32)
    x = net.relu(net.conv("x", 3, 2 * a))
    bounds = [(0, a), (a, 2 * a)]
    halves = [
        net.node("Slice", x, net.integers(start), net.integers(end), net.integers(1))
        for start, end in bounds
    ]
    x = net.node("Mul", halves[0], net.node("Sigmoid", halves[1]))
    x = net.relu(net.conv(x, a, 2 * a))
    return net.model(net.head(x, 2 * a))


def lstm(width: float) -> ir.Model:
    return _recurrent(width, "LSTM", gates=4)


def gru(width: float) -> ir.Model:
    return _recurrent(width, "GRU", gates=3)


def _recurrent(width: float, op_type: str, gates: int) -> ir.Model:
    net = Net(width)
    a, b = net.inner(32), net.inner(64)
    x = net.dense("x", 24, a)
    x = net.node("Transpose", x, perm=[1, 0, 2])
    scale = np.float32(0.3)
    parts = [
        net.weight(scale * net.rng.standard_normal(shape).astype(np.float32))
        for shape in ((1, gates * b, a), (1, gates * b, b), (1, 2 * gates * b))
    ]
    states = net.node(op_type, x, *parts, hidden_size=b)
    x = net.node("Squeeze", states, net.integers(1))
    return net.model(net.dense(x, b, CLASSES), ["N", 6, 24])


def mlp(width: float) -> ir.Model:
    net = Net(width)
    a, b = net.inner(64), net.inner(128)
    x = net.relu(net.gemm("x", 20, a))
    x = net.relu(net.dense(x, a, b))
    return net.model(net.gemm(x, b, CLASSES), ["N", 20])


def attention(width: float) -> ir.Model:
    net = Net(width)
    heads, depth, rows = net.inner(8), 16, 6
    a = heads * depth

    def split(x: str, order: list[int]) -> str:
        parts = net.node("Reshape", net.dense(x, 32, a), net.integers(0, rows, heads, depth))
        return str(net.node("Transpose", parts, perm=order))

    q, k, v = split("x", [0, 2, 1, 3]), split("x", [0, 2, 3, 1]), split("x", [0, 2, 1, 3])
    scores = net.node("MatMul", q, k)
    scores = net.node("Mul", scores, net.weight(np.array(depth**-0.5, np.float32)))
    mixed = net.node("MatMul", net.node("Softmax", scores, axis=-1), v)
    mixed = net.node("Transpose", mixed, perm=[0, 2, 1, 3])
    merged = net.node("Reshape", mixed, net.integers(0, rows, a))
    return net.model(net.dense(merged, a, 32), ["N", rows, 32])


def layernorm_mlp(width: float) -> ir.Model:
    net = Net(width)
    a, b = net.inner(64), net.inner(128)
    x = net.dense("x", 20, a)
    x = net.node("LayerNormalization", x, net.floats(a), net.floats(a))
    x = net.node("Mul", net.dense(x, a, b), net.node("Sigmoid", net.dense(x, a, b)))
    return net.model(net.dense(x, b, CLASSES), ["N", 20])


def unet(width: float) -> ir.Model:
    net = Net(width)
    a, b, c = net.inner(16), net.inner(32), net.inner(64)

    def down(x: str) -> str:
        return str(net.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))

    def up(x: str, skip: str) -> str:
        scales = net.weight(np.array([1, 1, 2, 2], np.float32))
        return str(net.node("Concat", net.node("Resize", x, "", scales), skip, axis=1))

    first = net.relu(net.conv("x", 3, a))
    second = net.relu(net.conv(down(first), a, b))
    deep = net.relu(net.conv(down(second), b, c))
    x = net.relu(net.conv(up(deep, second), c + b, b))
    x = net.relu(net.conv(up(x, first), b + a, a))
    return net.model(net.conv(x, a, 1, kernel=1))


def dense_block(width: float) -> ir.Model:
    net = Net(width)
    a, growth = net.inner(32), net.inner(16)
    x, channels = net.conv("x", 3, a), a
    for _ in range(3):
        y = net.conv(net.relu(net.norm(x, channels)), channels, growth)
        x, channels = net.node("Concat", x, y, axis=1), channels + growth
    return net.model(net.head(net.relu(net.norm(x, channels)), channels))


def inception(width: float) -> ir.Model:
    net = Net(width)
    a, b = net.inner(32), net.inner(16)
    x = net.relu(net.conv("x", 3, a))
    for cin in (a, 4 * b):
        pooled = net.node("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
        branches = [
            net.conv(x, cin, b, kernel=1),
            net.conv(net.relu(net.conv(x, cin, b, kernel=1)), b, b),
            net.conv(net.relu(net.conv(x, cin, b, kernel=1)), b, b, kernel=5),
            net.conv(pooled, cin, b, kernel=1),
        ]
        x = net.relu(net.node("Concat", *branches, axis=1))
    return net.model(net.head(x, 4 * b))


TOPOLOGIES: Mapping[str, Callable[[float], ir.Model]] = {
    "plain": plain,
    "BatchNorm unfused": batchnorm,
    "residual": residual,
    "residual + BatchNorm": residual_batchnorm,
    "depthwise": depthwise,
    "concat": concat,
    "split + concat": split_concat,
    "channel shuffle": channel_shuffle,
    "squeeze-excite": squeeze_excite,
    "grouped": grouped,
    "Conv-Flatten-Gemm": flatten_gemm,
    "ConvTranspose": conv_transpose,
    "slice": slice_channels,
    "LSTM": lstm,
    "GRU": gru,
    "MLP": mlp,
    "multi-head attention": attention,
    "LayerNorm MLP": layernorm_mlp,
    "U-Net with skips": unet,
    "dense block": dense_block,
    "inception block": inception,
}
