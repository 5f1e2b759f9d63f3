"""Static quantisation: what becomes 8 bits, what stays, how close the outputs are."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.graph.digest import model_digest
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.quantize import QuantizeSettings, quantize

ROOT = Path(__file__).parents[3]


def network(opset: int = 17, batch: str | int = "N", size: int = 8) -> ir.Model:
    """Conv, Relu, residual Add, pooling, Gemm, Softmax: [batch, 3, size, size] -> [batch, 5]."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        values = rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        return numpy_helper.from_array(values, name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["s"], "sum"),
        helper.make_node("Relu", ["s"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["g"], "classifier", transB=1),
        helper.make_node("Softmax", ["g"], ["y"], "softmax", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 5])],
        [
            weight("w1", 16, 3, 3, 3),
            weight("b1", 16),
            weight("w2", 16, 16, 3, 3),
            weight("w3", 5, 16),
            weight("b3", 5),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(proto)
    return ir.serde.deserialize_model(proto)


def samples(count: int = 40) -> dict[str, Any]:
    return {"x": np.random.default_rng(1).normal(size=(count, 3, 8, 8)).astype(np.float32)}


def weights_of(model: ir.Model) -> dict[str, Any]:
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
        and name.endswith("_quantized")
        and value.const_value.dtype == ir.DataType.INT8
    }


def scale_of(model: ir.Model, value: str) -> float:
    constant = model.graph.initializers[f"{value}_scale"].const_value
    assert constant is not None
    return float(constant.numpy())


def steps_of(report: Any) -> dict[str, int]:
    return {s.detail["op_type"]: s.count for s in report.steps if s.name == "quantise"}


@pytest.mark.parametrize("method", ["minmax", "moving_average", "percentile", "mse", "entropy"])
def test_the_outputs_stay_close_and_the_weights_become_int8(method: Any) -> None:
    model, data = network(), samples()

    quantised, report = quantize(model, data, QuantizeSettings(calibration_method=method))

    before = run(open_session(model, optimise=True), data)["y"]
    after = run(open_session(quantised, optimise=True), data)["y"]
    assert np.abs(after - before).max() < 0.05
    assert len(weights_of(quantised)) == 3
    assert report.changed
    assert report.max_relative_difference is not None
    assert 0 < report.max_relative_difference < 0.1
    assert report.after.size_bytes < report.before.size_bytes


def test_the_report_counts_what_is_quantised_and_says_why_the_rest_is_not() -> None:
    _, report = quantize(network(), samples())

    assert steps_of(report) == {
        "Conv": 2,
        "Add": 1,
        "GlobalAveragePool": 1,
        "Flatten": 1,
        "Gemm": 1,
        "Relu": 2,
    }
    assert [(s.what, s.why) for s in report.skipped] == [
        ("Softmax softmax", "avx2 has no 8-bit kernel for it")
    ]


def test_the_runtime_fuses_every_quantised_operator(tmp_path: Path) -> None:
    import onnxruntime

    quantised, _ = quantize(network(), samples())
    ir.save(quantised, tmp_path / "int8.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(tmp_path / "int8.onnx", options)

    types = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert {"QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "QGemm"} <= types
    assert not types & {"Conv", "Add", "Gemm", "Relu", "GlobalAveragePool"}


def test_no_pair_of_weights_saturates_where_kernels_add_pairs_in_16_bits() -> None:
    def largest_pair(target: str) -> int:
        model, _ = quantize(network(), samples(), QuantizeSettings(target=target))
        weight = weights_of(model)["w2_quantized"].astype(int)
        rows = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
        return int(np.abs(rows[:, 0::2] + rows[:, 1::2]).max())

    assert largest_pair("avx2") <= 128
    assert largest_pair("avx512_vnni") > 128


def test_one_scale_per_channel_or_per_tensor() -> None:
    def scales(per_channel: bool) -> set[int]:
        model, _ = quantize(network(), samples(), QuantizeSettings(per_channel=per_channel))
        return {
            node.inputs[1].const_value.size
            for node in model.graph
            if node.op_type == "DequantizeLinear"
            and node.inputs[0] is not None
            and node.inputs[0].const_value is not None
            and node.inputs[0].const_value.dtype == ir.DataType.INT8
            and node.inputs[1] is not None
            and node.inputs[1].const_value is not None
        }

    assert scales(True) == {16, 5}
    assert scales(False) == {1}


def test_no_sample_is_dropped() -> None:
    data = samples(37)
    data["x"][36] *= 20  # the extreme stands in the last, incomplete batch

    whole = quantize(network(), data)[0]
    without = quantize(network(), {"x": data["x"][:36]})[0]

    assert scale_of(whole, "x") > 10 * scale_of(without, "x")


def test_a_fixed_batch_dimension_is_kept() -> None:
    quantised, _ = quantize(network(batch=4), samples(12))

    assert run(open_session(quantised), samples(4))["y"].shape == (4, 5)


def test_the_original_is_not_touched_and_the_result_is_reproducible() -> None:
    model = network()
    digest = model_digest(model)

    first, _ = quantize(model, samples())
    second, _ = quantize(model, samples())

    assert model_digest(model) == digest
    assert model_digest(first) == model_digest(second)


def test_nothing_is_printed_and_logging_is_left_as_it_was(
    capsys: pytest.CaptureFixture[str],
) -> None:
    level = logging.getLogger().level

    quantize(network(), samples(), QuantizeSettings(calibration_method="percentile"))

    assert capsys.readouterr().out == ""
    assert logging.getLogger().level == level


def test_excluded_nodes_stay_in_float_and_are_named() -> None:
    quantised, report = quantize(network(), samples(), QuantizeSettings(exclude=("conv*",)))

    assert "Conv" not in steps_of(report)
    assert [s.what for s in report.skipped if s.why == "excluded by name"] == [
        "Conv conv1",
        "Conv conv2",
    ]
    assert len(weights_of(quantised)) == 1
    with pytest.raises(InputError, match="no node is named 'none'"):
        quantize(network(), samples(), QuantizeSettings(exclude=("none",)))


def test_an_old_operator_set_is_raised_and_the_report_says_so() -> None:
    quantised, report = quantize(network(opset=11), samples())

    assert quantised.opset_imports[""] == 17
    assert report.steps[0].what.startswith("operator set raised from 11 to 17")


def test_a_quantised_model_is_refused() -> None:
    quantised, _ = quantize(network(), samples())

    with pytest.raises(UnsupportedModelError, match="is quantised already"):
        quantize(quantised, samples())


def test_a_model_without_8_bit_kernels_is_refused() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )
    model = ir.serde.deserialize_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    )

    with pytest.raises(UnsupportedModelError, match="nothing to quantise"):
        quantize(model, {"x": np.ones((4, 3), np.float32)})


def test_samples_that_cannot_be_run_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be run on the data given"):
        quantize(network(), {"x": np.ones((4, 2, 8, 8), np.float32)})


def test_the_most_harmful_layers_stay_in_float_until_the_outputs_are_good_enough() -> None:
    model, data = network(), samples()
    plain = QuantizeSettings(refine=False)
    all_integer, _ = quantize(model, data, plain)
    _, report = quantize(model, data, replace(plain, min_sqnr_db=60.0))

    (mixed,) = [step for step in report.steps if step.name == "mixed-precision"]
    assert mixed.detail["is_met"]
    assert mixed.detail["sqnr_db"]["before"] < 60 <= mixed.detail["sqnr_db"]["after"]
    assert 0 < mixed.count < len(weights_of(all_integer))
    excluded = {s.what.split()[1] for s in report.skipped if s.why == "excluded by name"}
    assert excluded == set(mixed.detail["in_float"])


def test_a_stride_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="stride is 0; give 1 to count all values, or more"):
        QuantizeSettings(stride=0)


def test_the_stride_is_that_of_the_settings() -> None:
    settings = QuantizeSettings(calibration_method="mse", stride=1)
    rng = np.random.default_rng(1)
    # Every 17th value is small: with that stride the few large ones were cut off.
    x = rng.normal(size=(8, 3, 50, 50)).astype(np.float32)
    x.reshape(8, -1)[:, ::17] *= 0.01

    def scale(chosen: QuantizeSettings) -> float:
        return scale_of(quantize(network(batch="N", size=50), {"x": x}, chosen)[0], "x")

    assert scale(replace(settings, stride=17)) < 0.5 * scale(settings)


def test_a_share_above_one_is_refused() -> None:
    with pytest.raises(InputError, match="min_agreement is 99; give a share between 0 and 1"):
        QuantizeSettings(min_agreement=99)


def test_the_example_model_loses_little_accuracy() -> None:
    model = load_model(ROOT / "model_repository" / "fashion_resnet" / "1" / "model.onnx")
    folder = ROOT / "model_repository" / "fashion_resnet"

    def read(name: str, count: int) -> tuple[dict[str, Any], Any]:
        with np.load(folder / name) as archive:
            scale, offset = archive["input.scale_factor"], archive["input.add_offset"]
            pixels = archive["input"][:count].astype(np.float32)
            return {"input": pixels * scale + offset}, archive["labels"][:count]

    from trimton.transforms.fuse import fuse

    fused, _ = fuse(model)
    quantised, _ = quantize(fused, read("calibration.npz", 256)[0])
    inputs, labels = read("evaluation.npz", 1000)
    hits = {
        name: (run(open_session(m, optimise=True), inputs)["logits"].argmax(1) == labels).mean()
        for name, m in (("float", model), ("int8", quantised))
    }
    assert hits["float"] > 0.925
    assert hits["int8"] > hits["float"] - 0.015
