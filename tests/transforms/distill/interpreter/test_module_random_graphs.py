"""Property: whatever graph of these operators, the module computes what ONNX Runtime does."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimton.transforms.distill.interpreter import OnnxModule
from trimton.transforms.graph.difference import relative_difference
from trimton.transforms.graph.session import open_session, run

BATCH, CHANNELS, SIDE = 2, 4, 6


class GraphWriter:
    """Writes a random graph over a current value of shape [N, 4, 6, 6]; every step keeps it."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[ir.Node] = []
        self.weights: list[ir.Value] = []
        self.input = ir.val("x", ir.DataType.FLOAT, ["N", CHANNELS, SIDE, SIDE])
        self.current: ir.Value = self.input
        self.past = [self.input]

    def weight(self, array: np.ndarray) -> ir.Value:
        name = f"w{len(self.weights)}"
        tensor = ir.tensor(np.ascontiguousarray(array), name=name)
        kind = ir.TensorType(tensor.dtype)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=kind, const_value=tensor)
        self.weights.append(value)
        return value

    def floats(self, *shape: int) -> ir.Value:
        scale = np.sqrt(2 / max(1, int(np.prod(shape[1:]))))
        return self.weight((scale * self.rng.standard_normal(shape)).astype(np.float32))

    def integers(self, *numbers: int) -> ir.Value:
        return self.weight(np.array(numbers, np.int64))

    def node(
        self, op_type: str, *inputs: ir.Value | None, outputs: int = 1, **attributes: Any
    ) -> ir.Value:
        number = len(self.nodes)
        names = [ir.Value(name=f"v{number}_{index}") for index in range(outputs)]
        node = ir.node(op_type, list(inputs), attributes, outputs=names, name=f"n{number}")
        self.nodes.append(node)
        self.current = node.outputs[0]
        return self.current

    # -- steps ------------------------------------------------------------------------------------

    def conv(self, variant: int) -> None:
        groups = (1, 2, CHANNELS)[variant % 3]
        dilation = 1 + variant // 3 % 2
        weight = self.floats(CHANNELS, CHANNELS // groups, 3, 3)
        self.node(
            "Conv", self.current, weight, self.floats(CHANNELS), group=groups,
            dilations=[dilation] * 2, pads=[dilation] * 4,
        )  # fmt: skip

    def conv_transpose(self, variant: int) -> None:
        down = self.node("MaxPool", self.current, kernel_shape=[2, 2], strides=[2, 2])
        groups = 1 + variant % 2
        weight = self.floats(CHANNELS, CHANNELS // groups, 4, 4)
        self.node("ConvTranspose", down, weight, group=groups, strides=[2, 2], pads=[1] * 4)

    def norm(self, variant: int) -> None:
        def parts(*shape: int) -> ir.Value:
            return self.weight(self.rng.uniform(0.5, 1.5, shape).astype(np.float32))

        match variant % 3:
            case 0:
                statistics = [parts(CHANNELS) for _ in range(4)]
                self.node("BatchNormalization", self.current, *statistics)
            case 1:
                self.node("InstanceNormalization", self.current, parts(CHANNELS), parts(CHANNELS))
            case _:
                self.node("LayerNormalization", self.current, parts(SIDE), parts(SIDE))

    def activation(self, variant: int) -> None:
        names = ("Relu", "Sigmoid", "Tanh", "HardSwish", "Softplus", "Elu", "LeakyRelu", "Erf")
        self.node(names[variant % len(names)], self.current)

    def scale(self, variant: int) -> None:
        shapes = ((1,), (CHANNELS, 1, 1), (1, CHANNELS, 1, 1), (SIDE,))
        names = ("Add", "Mul", "Sub", "Max", "Min")
        self.node(names[variant % 5], self.current, self.floats(*shapes[variant % 4]))

    def residual(self, variant: int) -> None:
        self.node("Add", self.current, self.past[variant % len(self.past)])

    def concat_and_cut(self, variant: int) -> None:
        joined = self.node("Concat", self.current, self.past[variant % len(self.past)], axis=1)
        start = variant % (CHANNELS + 1)
        bounds = [self.integers(start), self.integers(start + CHANNELS), self.integers(1)]
        self.node("Slice", joined, *bounds)

    def split_and_join(self, variant: int) -> None:
        sizes = self.integers(1 + variant % 3, 3 - variant % 3)
        self.node("Split", self.current, sizes, outputs=2, axis=1)
        self.node("Concat", *reversed(self.nodes[-1].outputs), axis=1)

    def gather(self, _: int) -> None:
        self.node("Gather", self.current, self.integers(*self.rng.permutation(CHANNELS)), axis=1)

    def pool(self, variant: int) -> None:
        name = ("MaxPool", "AveragePool")[variant % 2]
        extra = {"count_include_pad": variant // 2 % 2} if name == "AveragePool" else {}
        self.node(name, self.current, kernel_shape=[3, 3], pads=[1] * 4, **extra)

    def resize(self, variant: int) -> None:
        modes = ("nearest", "linear", "cubic")
        down = self.node("AveragePool", self.current, kernel_shape=[2, 2], strides=[2, 2])
        scales = self.weight(np.array([1, 1, 2, 2], np.float32))
        coordinates = ("half_pixel", "asymmetric", "align_corners")[variant // 3 % 3]
        self.node(
            "Resize", down, None, scales, mode=modes[variant % 3],
            coordinate_transformation_mode=coordinates,
        )  # fmt: skip

    def attention(self, variant: int) -> None:
        """Over the rows of one channel, as many heads as there are channels."""
        data = self.current
        query = self.node("MatMul", data, self.floats(SIDE, SIDE))
        key = self.node("Transpose", data, perm=[0, 1, 3, 2])
        self.node("MatMul", query, key)
        weights = self.node("Softmax", self.current, axis=-1)
        if variant % 2:
            self.node("Einsum", weights, data, equation="bcij,bcjd->bcid")
        else:
            self.node("MatMul", weights, data)

    def recurrent(self, variant: int) -> None:
        """Rows as the batch, columns as steps: [N, C, H, W] -> [W, N*H, C] and back."""
        name = ("LSTM", "GRU", "RNN")[variant % 3]
        gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[name]
        data = self.node("Transpose", self.current, perm=[3, 0, 2, 1])
        self.node("Reshape", data, self.integers(SIDE, -1, CHANNELS))
        weights = [self.floats(1, gates * CHANNELS, CHANNELS) for _ in range(2)]
        bias = self.floats(1, 2 * gates * CHANNELS)
        extra = {"linear_before_reset": variant // 3 % 2} if name == "GRU" else {}
        direction = ("forward", "reverse")[variant // 6 % 2]
        self.node(
            name, self.current, *weights, bias, hidden_size=CHANNELS, direction=direction, **extra
        )
        self.node("Reshape", self.current, self.integers(SIDE, -1, SIDE, CHANNELS))
        self.node("Transpose", self.current, perm=[1, 3, 2, 0])

    def by_shape(self, _: int) -> None:
        """Flattened and back by arithmetic of shapes."""
        data = self.current
        shape = self.node("Shape", data)
        flat = self.node("Reshape", data, self.integers(0, -1))
        self.node("Mul", flat, self.floats(CHANNELS * SIDE * SIDE))
        self.node("Reshape", self.current, shape)

    def reduced(self, variant: int) -> None:
        data = self.current
        name = ("ReduceMean", "ReduceMax", "ReduceL2")[variant % 3]
        reduced = self.node(name, data, axes=[1 + variant % 2])
        self.node("Sub", data, reduced)

    def model(self) -> ir.Model:
        self.conv(0)
        output = self.current
        output.type = ir.TensorType(ir.DataType.FLOAT)
        output.shape = ir.Shape(["N", CHANNELS, SIDE, SIDE])
        graph = ir.Graph(
            [self.input], [output], nodes=self.nodes, initializers=self.weights,
            opset_imports={"": 17}, name="random",
        )  # fmt: skip
        return ir.Model(graph, ir_version=8)


STEPS = [
    "conv",
    "conv_transpose",
    "norm",
    "activation",
    "scale",
    "residual",
    "concat_and_cut",
    "split_and_join",
    "gather",
    "pool",
    "resize",
    "attention",
    "recurrent",
    "by_shape",
    "reduced",
]


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 59)), min_size=1, max_size=8),
    seed=st.integers(0, 2**16),
)
def test_the_module_computes_what_onnx_runtime_does(
    steps: list[tuple[str, int]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    writer = GraphWriter(rng)
    for name, variant in steps:
        getattr(writer, name)(variant)
        writer.past.append(writer.current)
    model = writer.model()
    sample = {"x": rng.standard_normal((BATCH, CHANNELS, SIDE, SIDE)).astype(np.float32)}
    module = OnnxModule(model, check=sample).eval()
    first = module({name: torch.from_numpy(array) for name, array in sample.items()})
    again = module({name: torch.from_numpy(array) for name, array in sample.items()})
    ((name, made),) = first.items()
    assert relative_difference(run(open_session(model), sample)[name], made.detach().numpy()) < 1e-3
    torch.testing.assert_close(made, again[name], rtol=0, atol=0)
    made.square().mean().backward()
    assert all(
        weight.grad is not None and bool(weight.grad.isfinite().all())
        for _, weight in module.weights()
    )
