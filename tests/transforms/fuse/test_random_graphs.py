"""Property: whatever graph of these operators, fused equals original, and fusing again is idle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Fuse = Callable[[ir.Model], Any]
OPSETS = (8, 10, 12, 14, 18, 21)
SIDE = 8


class GraphWriter:
    """Writes a random graph as nodes over a current value of shape [N, channels, side, side]."""

    def __init__(self, opset: int, rng: np.random.Generator) -> None:
        self.opset = opset
        self.rng = rng
        self.nodes: list[ir.Node] = []
        self.weights: list[ir.Value] = []
        self.input = ir.val("x", ir.DataType.FLOAT, ["N", 4, SIDE, SIDE])
        self.current = self.input
        self.channels = 4
        self.side = SIDE
        # Earlier values with their channels and side, for residual sums and outputs.
        self.past = [(self.input, 4, SIDE)]

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

    def floats(self, *shape: int, low: float = -1, high: float = 1) -> ir.Value:
        return self.weight(self.rng.uniform(low, high, shape).astype(np.float32))

    def node(
        self, op_type: str, *inputs: ir.Value | None, outputs: int = 1, **attributes: Any
    ) -> None:
        number = len(self.nodes)
        names = [ir.Value(name=f"v{number}_{index}") for index in range(outputs)]
        node = ir.node(op_type, list(inputs), attributes, outputs=names, name=f"n{number}")
        self.nodes.append(node)
        self.current = node.outputs[0]

    def conv(self, variant: int) -> None:
        groups = (1, 1, 2, self.channels)[variant % 4]
        groups = groups if self.channels % groups == 0 else 1
        channels = self.channels if groups > 2 else 4 + 2 * (variant % 2)
        pads = variant % 3
        if self.side + 2 * pads < 3:
            pads = 1
        weight = self.floats(channels, self.channels // groups, 3, 3, low=-0.4, high=0.4)
        bias = self.floats(channels) if variant % 2 else None
        inputs = (self.current, weight) if bias is None else (self.current, weight, bias)
        self.node("Conv", *inputs, group=groups, pads=[pads] * 4)
        self.channels = channels
        self.side = self.side + 2 * pads - 2

    def conv_transpose(self, variant: int) -> None:
        groups = 2 if variant % 2 and self.channels % 2 == 0 else 1
        weight = self.floats(self.channels, 4 // groups, 1, 1)
        self.node("ConvTranspose", self.current, weight, group=groups)
        self.channels = 4

    def norm(self, variant: int) -> None:
        parts = [self.floats(self.channels, low=0.5, high=2) for _ in range(2)]
        beta, mean = self.floats(self.channels), self.floats(self.channels)
        self.node("BatchNormalization", self.current, parts[0], beta, mean, parts[1])

    def arithmetic(self, variant: int) -> None:
        shapes = ((), (1,), (self.channels, 1, 1), (1, self.channels, 1, 1), (self.side,))
        other = self.floats(*shapes[variant % 5], low=0.5, high=2)
        operator = ("Add", "Mul", "Sub", "Div")[variant // 5 % 4]
        pair = (self.current, other) if variant % 3 else (other, self.current)
        if operator == "Div":
            pair = (self.current, other)
        self.node(operator, *pair)

    def activation(self, variant: int) -> None:
        self.node(("Relu", "Sigmoid", "Tanh", "Abs")[variant % 4], self.current)

    def no_op(self, variant: int) -> None:
        kind = variant % 5
        if kind == 0:
            self.node("Identity", self.current)
        elif kind == 1:
            self.node("Dropout", self.current)
        elif kind == 2:
            self.node("Transpose", self.current, perm=[0, 2, 3, 1])
            self.node("Transpose", self.current, perm=[0, 3, 1, 2])
        elif kind == 3:
            flat = self.weight(np.array([0, -1], np.int64))
            back = self.weight(np.array([-1, self.channels, self.side, self.side], np.int64))
            self.node("Reshape", self.current, flat)
            self.node("Reshape", self.current, back)
        else:
            self.node("Mul", self.current, self.weight(np.ones((1,), np.float32)))

    def pad_and_pool(self, variant: int) -> None:
        amounts = [0, 0, variant % 2, 1, 0, 0, 1, variant % 3 % 2]
        mode = "reflect" if variant % 7 == 0 and self.side > 1 else "constant"
        value = (0.0, 0.0, 0.5)[variant % 3]
        if self.opset < 11:
            self.node("Pad", self.current, pads=amounts, value=value, mode=mode)
        else:
            fill = self.weight(np.array(value, np.float32))
            self.node(
                "Pad", self.current, self.weight(np.array(amounts, np.int64)), fill, mode=mode
            )
        # A window that brings both sides back to one size.
        height = self.side + amounts[2] + amounts[6]
        width = self.side + amounts[3] + amounts[7]
        window = [height - self.side + 1, width - self.side + 1]
        if variant % 2:
            self.node("AveragePool", self.current, kernel_shape=window)
        else:
            weight = self.floats(self.channels, self.channels, *window, low=-0.4, high=0.4)
            self.node("Conv", self.current, weight)

    def residual(self, variant: int) -> None:
        fitting = [v for v, c, s in self.past if (c, s) == (self.channels, self.side)]
        if fitting:
            self.node("Add", self.current, fitting[variant % len(fitting)])

    def twin(self, variant: int) -> None:
        """The same computation twice, with weights that are equal but not the same."""
        source, array = self.current, self.rng.uniform(0.5, 2, (1, 1, 1, 1)).astype(np.float32)
        self.node("Mul", source, self.weight(array))
        first = self.current
        self.node("Mul", source, self.weight(array.copy()))
        self.node("Max", first, self.current)

    MOVES = (
        conv, norm, arithmetic, activation, no_op, pad_and_pool, residual, twin, conv_transpose,
    )  # fmt: skip

    def write(self, moves: list[tuple[int, int]], extra_output: int) -> ir.Model:
        for move, variant in moves:
            self.MOVES[move](self, variant)
            self.past.append((self.current, self.channels, self.side))
        self.node("Relu", self.current)
        outputs = [self.current]
        seen, *_ = self.past[extra_output % len(self.past)]
        if seen is not self.input:
            outputs.append(seen)
        for output in outputs:
            output.type = ir.TensorType(ir.DataType.FLOAT)
            output.shape = ir.Shape([None, None, None, None])
        graph = ir.Graph(
            [self.input],
            outputs,
            nodes=self.nodes,
            initializers=self.weights,
            opset_imports={"": self.opset},
            name="g",
        )
        return ir.Model(graph, ir_version=8)


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    opset=st.sampled_from(OPSETS),
    seed=st.integers(0, 2**16),
    moves=st.lists(
        st.tuples(st.integers(0, len(GraphWriter.MOVES) - 1), st.integers(0, 40)),
        min_size=2,
        max_size=10,
    ),
    extra_output=st.integers(0, 10),
)
def test_fused_equals_original(
    checked_fuse: Fuse, opset: int, seed: int, moves: list[tuple[int, int]], extra_output: int
) -> None:
    writer = GraphWriter(opset, np.random.default_rng(seed))
    checked_fuse(writer.write(moves, extra_output))
