"""Gradients against finite differences in float64, for every operator that has any."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import Tensor

from trimton.transforms.distill.interpreter import OnnxModule
from trimton.transforms.distill.interpreter.dtypes import to_tensor
from trimton.transforms.distill.interpreter.operators import OPERATORS

MAX_ELEMENTS = 5000
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
# Where an operator is defined, or has no kink, other than around 0 with deviation 1.
POSITIVE = (0.5, 2.0)
RANGES: Mapping[str, tuple[float, float]] = {
    "Acos": (-0.9, 0.9),
    "Acosh": (1.5, 3.0),
    "Asin": (-0.9, 0.9),
    "Atanh": (-0.9, 0.9),
    "Div": POSITIVE,
    "Log": POSITIVE,
    "LpNormalization": POSITIVE,
    "LpPool": POSITIVE,
    "Mod": POSITIVE,
    "Pow": POSITIVE,
    "Reciprocal": POSITIVE,
    "ReduceL1": POSITIVE,
    "ReduceL2": POSITIVE,
    "ReduceLogSum": POSITIVE,
    "ReduceProd": POSITIVE,
    "Sqrt": POSITIVE,
}
# Inputs that are settings, or that have no gradient by design, by operator.
SETTINGS: Mapping[str, frozenset[int]] = {
    "BatchNormalization": frozenset({3, 4}),
    "Dropout": frozenset({1, 2}),
    "Pad": frozenset({2}),
    "Resize": frozenset({1, 2}),
    "Upsample": frozenset({1}),
}
# Their gradient is chosen, not derived (see test_fake_quantisation), or their output is an index,
# a truth or a count although numbers go in.
WITHOUT = frozenset(
    [
        "ArgMax",
        "ArgMin",
        "Cast",
        "CastLike",
        "Ceil",
        "Compress",
        "ConstantOfShape",
        "DynamicQuantizeLinear",
        "Equal",
        "EyeLike",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "Hardmax",
        "IsInf",
        "IsNaN",
        "Less",
        "LessOrEqual",
        "NonZero",
        "OneHot",
        "QuantizeLinear",
        "Range",
        "Round",
        "Shape",
        "Sign",
        "Size",
    ]
)
# Operators of which ONNX has no small example on floats.
OWN_EXAMPLES = (
    ("g (float[4,5] x) => (float[4,5] y) {y = Mish(x)}", [np.zeros((4, 5), np.float32)]),
    (
        "g (float[2,3,4,5] x) => (float[2,3,1,1] y) {y = GlobalLpPool<p = 3>(x)}",
        [np.zeros((2, 3, 4, 5), np.float32)],
    ),
    (
        "g (float[4,5] x) => (float[4,5] y) {y = Trilu<upper = 0>(x)}",
        [np.zeros((4, 5), np.float32)],
    ),
)
LOGICAL = frozenset(
    [
        "And",
        "BitShift",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "Constant",
        "Not",
        "Or",
        "Xor",
    ]
)


def examples() -> Mapping[str, list[tuple[onnx.ModelProto, list[np.ndarray]]]]:
    """By operator, up to three of ONNX's examples of one node on floats, of various sizes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    found: dict[str, list[tuple[int, str, onnx.ModelProto, list[np.ndarray]]]] = {}
    for case in cases:
        nodes, given = case.model.graph.node, case.data_sets[0][0]
        if len(nodes) != 1 or (nodes[0].domain, nodes[0].op_type) not in OPERATORS:
            continue
        arrays = [np.asarray(item) for item in given]
        if "training" in case.name or any(item.dtype == object for item in arrays):
            continue
        size = sum(item.size for item in arrays)
        is_full = all(item.size for item in arrays)
        if is_full and size <= MAX_ELEMENTS and any(item.dtype in FLOATS for item in arrays):
            found.setdefault(nodes[0].op_type, []).append((size, case.name, case.model, arrays))
    return {
        name: [
            (model, arrays)
            for _, _, model, arrays in sorted(listed, key=lambda e: e[:2])[
                :: -(len(listed) // 3 or 1)
            ]
        ]
        for name, listed in found.items()
    }


def has_right_gradient(model: onnx.ModelProto, arrays: list[np.ndarray], seed: int) -> bool | None:
    """Whether all gradients agree with finite differences; None where there is none to take."""
    node = model.graph.node[0]
    low, high = RANGES.get(node.op_type, (np.nan, np.nan))
    rng = np.random.default_rng(seed)
    feeds: dict[str, Tensor] = {}
    for value, array in zip(model.graph.input, arrays, strict=True):
        place = list(node.input).index(value.name)
        if array.dtype not in FLOATS or place in SETTINGS.get(node.op_type, ()):
            wide = np.float64 if array.dtype in FLOATS else array.dtype
            feeds[value.name] = to_tensor(array.astype(wide))
            continue
        made = (
            rng.standard_normal(array.shape)
            if np.isnan(low)
            else rng.uniform(low, high, array.shape)
        )
        feeds[value.name] = to_tensor(np.asarray(made)).requires_grad_()
    module = OnnxModule(ir.from_proto(model)).eval()
    learned = [name for name, tensor in feeds.items() if tensor.requires_grad]

    def outputs(*tensors: Tensor) -> tuple[Tensor, ...]:
        made = module({**feeds, **dict(zip(learned, tensors, strict=True))})
        return tuple(t for t in made.values() if t.dtype.is_floating_point and t.requires_grad)

    given = [feeds[name] for name in learned]
    if not outputs(*given):
        return None
    return torch.autograd.gradcheck(outputs, given, atol=1e-6, rtol=1e-4, fast_mode=True)


def test_gradients_agree_with_finite_differences() -> None:
    checked, wrong = set(), []
    for name, listed in examples().items():
        if name in WITHOUT:
            continue
        for number, (model, arrays) in enumerate(listed):
            try:
                if has_right_gradient(model, arrays, number):
                    checked.add(name)
            except (RuntimeError, ValueError) as error:
                wrong.append((name, number, str(error)[:300]))
    for text, arrays in OWN_EXAMPLES:
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {text}')
        assert has_right_gradient(model, arrays, 0)
        checked.add(model.graph.node[0].op_type)
    assert wrong == []
    differentiable = {name for _, name in OPERATORS} - WITHOUT - LOGICAL
    assert differentiable - checked == set()
