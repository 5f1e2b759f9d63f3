"""Property: whatever graph of these operators, the masked original equals the cut model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from trimton.core.errors import UnsupportedModelError

SIDE = 6


class GraphWriter:
    """Writes a random graph over a current value of shape [N, channels, SIDE, SIDE]."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[ir.Node] = []
        self.weights: list[ir.Value] = []
        self.input = ir.val("x", ir.DataType.FLOAT, ["N", 4, SIDE, SIDE])
        self.current: ir.Value = self.input
        self.channels = 4
        self.past = [(self.input, 4)]

    def weight(self, array: np.ndarray) -> ir.Value:
        name = f"w{len(self.weights)}"
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.tensor(array, name=name),
        )
        self.weights.append(value)
        return value

    def floats(self, *shape: int) -> ir.Value:
        scale = np.sqrt(2 / max(1, int(np.prod(shape[1:]))))
        return self.weight((scale * self.rng.standard_normal(shape)).astype(np.float32))

    def integers(self, *numbers: int) -> ir.Value:
        return self.weight(np.array(numbers, np.int64))

    def node(
        self, op_type: str, *inputs: ir.Value, outputs: int = 1, **attributes: Any
    ) -> list[ir.Value]:
        number = len(self.nodes)
        names = [ir.Value(name=f"v{number}_{index}") for index in range(outputs)]
        node = ir.node(op_type, list(inputs), attributes, outputs=names, name=f"n{number}")
        self.nodes.append(node)
        self.current = node.outputs[0]
        return list(node.outputs)

    def conv_of(self, value: ir.Value, cin: int, cout: int, groups: int = 1) -> ir.Value:
        weight, bias = self.floats(cout, cin // groups, 3, 3), self.floats(cout)
        return self.node("Conv", value, weight, bias, group=groups, pads=[1] * 4)[0]

    # -- steps: each keeps the current value 4-dimensional --------------------------------------

    def conv(self, variant: int) -> None:
        cout = (4, 6, 8, 12)[variant % 4]
        self.conv_of(self.current, self.channels, cout)
        self.channels = cout

    def grouped(self, variant: int) -> None:
        groups = (2, self.channels)[variant % 2]
        if self.channels % groups:
            return
        multiplier = 1 + variant // 2 % 2
        cout = self.channels * multiplier
        self.conv_of(self.current, self.channels, cout, groups)
        self.channels = cout

    def conv_transpose(self, variant: int) -> None:
        groups = 2 if variant % 2 and self.channels % 2 == 0 else 1
        weight = self.floats(self.channels, 8 // groups, 3, 3)
        self.node("ConvTranspose", self.current, weight, group=groups, pads=[1] * 4)
        self.channels = 8

    def norm(self, variant: int) -> None:
        parts = [
            self.weight(self.rng.uniform(0.5, 1.5, self.channels).astype(np.float32))
            for _ in range(4)
        ]
        if variant % 3:
            self.node("BatchNormalization", self.current, *parts)
        else:
            self.node("InstanceNormalization", self.current, *parts[:2])

    def activation(self, variant: int) -> None:
        self.node(("Relu", "Sigmoid", "Tanh", "Softplus")[variant % 4], self.current)

    def scale(self, variant: int) -> None:
        shapes = ((), (1,), (self.channels, 1, 1), (1, self.channels, 1, 1), (SIDE,))
        other = self.floats(*shapes[variant % 5])
        self.node(("Add", "Mul", "Sub")[variant % 3], self.current, other)

    def residual(self, variant: int) -> None:
        same = [value for value, channels in self.past if channels == self.channels]
        if same:
            self.node("Add", self.current, same[variant % len(same)])

    def concat(self, variant: int) -> None:
        other, channels = self.past[variant % len(self.past)]
        pair = (self.current, other) if variant % 2 else (other, self.current)
        self.node("Concat", *pair, axis=1 if variant % 3 else -3)
        self.channels += channels

    def split(self, variant: int) -> None:
        if self.channels < 2:
            return
        first = 1 + variant % (self.channels - 1)
        sizes = (first, self.channels - first)
        parts = self.node("Split", self.current, self.integers(*sizes), outputs=2, axis=1)
        index = variant % 2
        self.current, self.channels = parts[index], sizes[index]
        self.past.append((parts[1 - index], sizes[1 - index]))

    def slice(self, variant: int) -> None:
        start = variant % self.channels
        end = self.channels if variant % 2 else start - self.channels + 1 or self.channels
        taken = len(range(self.channels)[start:end])
        self.node("Slice", self.current, self.integers(start), self.integers(end), self.integers(1))
        self.channels = taken

    def gather(self, variant: int) -> None:
        chosen = self.rng.permutation(self.channels)[: max(1, self.channels - variant % 3)]
        self.node("Gather", self.current, self.integers(*chosen), axis=1)
        self.channels = len(chosen)

    def shuffle(self, variant: int) -> None:
        groups = 2 + variant % 2
        if self.channels % groups:
            return
        n = self.channels
        self.node("Reshape", self.current, self.integers(0, groups, n // groups, SIDE, SIDE))
        self.node("Transpose", self.current, perm=[0, 2, 1, 3, 4])
        self.node("Reshape", self.current, self.integers(0, n, SIDE, SIDE))

    def gate(self, variant: int) -> None:
        data, channels = self.current, self.channels
        pooled = (
            self.node("ReduceMean", data, axes=[2, 3])[0]
            if variant % 2
            else self.node("GlobalAveragePool", data)[0]
        )
        squeezed = self.node("Conv", pooled, self.floats(4, channels, 1, 1))[0]
        gate = self.node("Conv", squeezed, self.floats(channels, 4, 1, 1))[0]
        self.node("Mul", data, self.node("Sigmoid", gate)[0])

    def pad(self, variant: int) -> None:
        before, after = variant % 3, variant % 2
        self.node("Pad", self.current, self.integers(0, before, 0, 0, 0, after, 0, 0))
        self.channels += before + after

    def last_axis(self, variant: int) -> None:
        data = self.node("Transpose", self.current, perm=[0, 2, 3, 1])[0]
        cout = 4 + 2 * (variant % 3)
        self.node("MatMul", data, self.floats(self.channels, cout))
        self.node("Transpose", self.current, perm=[0, 3, 1, 2])
        self.channels = cout

    def reduce_channels(self, variant: int) -> None:
        mean = self.node("ReduceMax", self.current, axes=[1])[0]
        self.node("Add", self.past[-1][0], mean)
        self.channels = self.past[-1][1]

    def tile(self, variant: int) -> None:
        if self.channels <= 8:
            self.node("Tile", self.current, self.integers(1, 2, 1, 1))
            self.channels *= 2

    def model(self) -> ir.Model:
        last = self.conv_of(self.current, self.channels, 3)
        flat = self.node("Flatten", last)[0]
        output = self.node("MatMul", flat, self.floats(3 * SIDE * SIDE, 5))[0]
        graph = ir.Graph(
            [self.input],
            [output],
            nodes=self.nodes,
            initializers=self.weights,
            opset_imports={"": 17},
            name="random",
        )
        output.type = ir.TensorType(ir.DataType.FLOAT)
        output.shape = ir.Shape(["N", 5])
        return ir.Model(graph, ir_version=8)


STEPS = (
    "conv",
    "grouped",
    "conv_transpose",
    "norm",
    "activation",
    "scale",
    "residual",
    "concat",
    "split",
    "slice",
    "gather",
    "shuffle",
    "gate",
    "pad",
    "last_axis",
    "reduce_channels",
    "tile",
    "conv",
)


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 59)), min_size=2, max_size=10),
    seed=st.integers(0, 2**16),
    ratio=st.sampled_from([0.25, 0.5, 0.8]),
)
def test_masked_equals_cut(
    checked_cut, steps: list[tuple[str, int]], seed: int, ratio: float
) -> None:
    writer = GraphWriter(np.random.default_rng(seed))
    writer.conv(seed)
    for name, variant in steps:
        if writer.channels > 48:
            break
        getattr(writer, name)(variant)
        writer.past.append((writer.current, writer.channels))
    try:
        checked_cut(writer.model(), ratio, seed=seed)
    except UnsupportedModelError:
        reject()  # nothing can be pruned; too many of these would fail the test
