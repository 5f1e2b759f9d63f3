"""Targets: the table of operators against the runtime, and which target a processor gets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.quantize import QuantizeSettings, quantize
from trimton.transforms.quantize.kernels import KERNELS
from trimton.transforms.quantize.targets import TARGETS, target_named, target_of_processor

RNG = np.random.default_rng(0)
WEIGHTS = {
    "w": RNG.normal(size=(8, 8, 3, 3)).astype(np.float32),
    "v": RNG.normal(size=(8, 8, 1, 1)).astype(np.float32),
}

# One node between two convolutions, from a [N,8,6,6] to b, of four dimensions and 8 channels.
BETWEEN = {
    "Add": "b = Add(a, a2)",
    "AveragePool": "b = AveragePool<kernel_shape=[2,2]>(a)",
    "Concat": "b = Concat<axis=2>(a, a2)",
    "DepthToSpace": "c = Concat<axis=1>(a, a, a, a) b = DepthToSpace<blocksize=2>(c)",
    "Div": "s = Constant<value_float=3.0>() b = Div(a, s)",
    "Expand": "s = Constant<value_ints=[1,8,6,6]>() b = Expand(a, s)",
    "Flatten": "c = Flatten(a) s = Constant<value_ints=[-1,8,6,6]>() b = Reshape(c, s)",
    "Gather": "i = Constant<value_ints=[0,2]>() b = Gather<axis=2>(a, i)",
    "GatherElements": "b = GatherElements<axis=2>(a, picked)",
    "GlobalAveragePool": "b = GlobalAveragePool(a)",
    "Identity": "b = Identity(a)",
    "LeakyRelu": "b = LeakyRelu<alpha=0.1>(a)",
    "MaxPool": "b = MaxPool<kernel_shape=[2,2]>(a)",
    "Mul": "b = Mul(a, a2)",
    "ReduceMax": "b = ReduceMax<axes=[3]>(a)",
    "ReduceMin": "b = ReduceMin<axes=[3]>(a)",
    "Reshape": "s = Constant<value_ints=[-1,8,36,1]>() b = Reshape(a, s)",
    "Resize": 's = Constant<value_floats=[1.0,1.0,2.0,2.0]>() b = Resize<mode="nearest">(a, , s)',
    "Sigmoid": "b = Sigmoid(a)",
    "Slice": "s = Constant<value_ints=[1]>() e = Constant<value_ints=[5]>() "
    "x2 = Constant<value_ints=[2]>() b = Slice(a, s, e, x2)",
    "Split": "b, c = Split<axis=3>(a) d = Conv(c, v)",
    "Squeeze": "m = MaxPool<kernel_shape=[6,1]>(a) x2 = Constant<value_ints=[2]>() "
    "c = Squeeze(m, x2) b = Unsqueeze(c, x2)",
    "Tile": "s = Constant<value_ints=[1,1,2,1]>() b = Tile(a, s)",
    "Transpose": "b = Transpose<perm=[0,1,3,2]>(a)",
}
LAYERS = {"Conv", "Gemm", "MatMul"}


def between(make_model: Any, op_type: str) -> ir.Model:
    weights: dict[str, Any] = dict(WEIGHTS)
    inputs = "float[N,8,6,6] x, float[8,8,3,3] w, float[8,8,1,1] v"
    if op_type == "GatherElements":
        weights["picked"] = np.zeros((4, 8, 2, 6), np.int64)
        inputs += ", int64[4,8,2,6] picked"
    outputs = "float[N,8,H,W] y" + (", float[N,8,H2,W2] d" if op_type == "Split" else "")
    model: ir.Model = make_model(
        f"g ({inputs}) => ({outputs}) {{ a = Conv<pads=[1,1,1,1]>(x, w) a2 = Conv(x, v) "
        f"{BETWEEN[op_type]} y = Conv(b, v) }}",
        **weights,
    )
    return model


def fused(model: ir.Model, tmp_path: Path, **config: str) -> Counter[str]:
    """The operators that the runtime makes of ``model``."""
    ir.save(model, tmp_path / "int8.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    for key, value in config.items():
        options.add_session_config_entry(f"session.{key}", value)
    onnxruntime.InferenceSession(tmp_path / "int8.onnx", options)
    return Counter(n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node)


def samples(count: int = 4) -> dict[str, Any]:
    return {"x": RNG.normal(size=(count, 8, 6, 6)).astype(np.float32)}


def settings(target: str) -> QuantizeSettings:
    return QuantizeSettings(target=target, refine=False, equalise=False, smooth=False)


def test_every_operator_of_the_table_is_tried() -> None:
    assert set(BETWEEN) | {"Unsqueeze"} | LAYERS == set(KERNELS)
    assert "Unsqueeze" in BETWEEN["Squeeze"]


@pytest.mark.parametrize("op_type", sorted(BETWEEN))
def test_between_layers_the_runtime_converts_nothing(
    make_model: Any, tmp_path: Path, op_type: str
) -> None:
    outputs = 2 if op_type == "Split" else 1

    quantised, report = quantize(between(make_model, op_type), samples(), settings("avx512_vnni"))

    counts = fused(quantised, tmp_path)
    assert counts["QuantizeLinear"] == 1, "only the input"
    assert counts["DequantizeLinear"] == outputs, "only the outputs"
    assert not counts["Conv"]
    assert op_type not in {skipped.what.split()[0] for skipped in report.skipped}
    (kernels,) = [step for step in report.steps if step.name == "kernels"]
    assert kernels.detail["unfused"] == []


def test_signed_activations_fuse_where_the_runtime_takes_them(
    make_model: Any, tmp_path: Path
) -> None:
    quantised, _ = quantize(between(make_model, "Add"), samples(), settings("arm_dotprod"))

    counts = fused(quantised, tmp_path, qdqisint8allowed="1")

    assert (counts["QLinearConv"], counts["QLinearAdd"], counts["Conv"]) == (3, 1, 0)


def test_tensorrt_gets_signed_symmetric_activations_and_biases_in_float(make_model: Any) -> None:
    model = make_model(
        "g (float[N,8,6,6] x, float[8,8,3,3] w, float[8] b) => (float[N,8,H,W] y)"
        "{ a = Conv(x, w, b) r = Relu(a) y = Conv(r, w, b) }",
        w=WEIGHTS["w"],
        b=np.ones(8, np.float32),
    )

    quantised, _ = quantize(model, samples(), settings("tensorrt"))

    constants = {
        name: value.const_value.numpy()
        for name, value in quantised.graph.initializers.items()
        if value.const_value is not None
    }
    assert {a.dtype for n, a in constants.items() if n.endswith("_zero_point")} == {np.dtype("i1")}
    assert all(not a.any() for n, a in constants.items() if n.endswith("_zero_point"))
    assert not any(array.dtype == np.int32 for array in constants.values())
    assert [n.op_type for n in quantised.graph].count("Relu") == 1


def test_a_provider_without_8_bit_kernels_is_refused_with_the_mend(make_model: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=r"CUDA provider.*tensorrt, or float16"):
        quantize(between(make_model, "Add"), samples(), settings("cuda"))


def test_an_unknown_target_is_refused_with_all_names() -> None:
    with pytest.raises(InputError, match=r"unknown target 'sse'; take one of amx, .*vnni"):
        target_named("sse")


def test_the_model_names_its_target(make_model: Any) -> None:
    quantised, _ = quantize(between(make_model, "Add"), samples(), settings("vnni"))

    assert quantised.metadata_props["trimton.quantize.target"] == "avx512_vnni"


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (("avx2", "fma"), "avx2"),
        (("avx2", "avx512f"), "avx512"),
        (("avx2", "avx_vnni"), "avx_vnni"),
        (("avx2", "avx512f", "avx512_vnni"), "avx512_vnni"),
        (("avx512f", "avx512_vnni", "amx_tile", "amx_int8"), "amx"),
        (("asimddp", "i8mm"), "arm_dotprod"),
        ((), "avx2"),
    ],
)
def test_a_processor_gets_the_best_target_it_has(flags: tuple[str, ...], name: str) -> None:
    assert target_of_processor(flags) is TARGETS[name]


def test_targets_of_processors_without_dot_products_saturate() -> None:
    assert {name for name, target in TARGETS.items() if target.saturates} == {"avx2", "avx512"}
