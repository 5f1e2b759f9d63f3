"""Writing: outputs, subgraphs, shared constants and biases in the QDQ form."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimton.transforms.graph.session import open_session, run
from trimton.transforms.quantize import QuantizeSettings, quantize

RNG = np.random.default_rng(0)
CONV = RNG.normal(0, 0.3, size=(8, 8, 1, 1)).astype(np.float32)
MATRIX = RNG.normal(0, 0.3, size=(8, 8)).astype(np.float32)
PLAIN = QuantizeSettings(
    target="avx512_vnni", equalise=False, smooth=False, correct_bias=False, refine=False
)


def pictures(count: int = 8) -> dict[str, Any]:
    return {"x": RNG.normal(size=(count, 8, 6, 6)).astype(np.float32)}


def outputs(model: ir.Model, feeds: dict[str, Any], *, optimise: bool = True) -> dict[str, Any]:
    return run(open_session(model, optimise=optimise), feeds)


def checked(model: ir.Model) -> ir.Model:
    onnx.checker.check_model(ir.serde.serialize_model(model), full_check=True)
    return model


def closeness_db(reference: Any, other: Any) -> float:
    noise = max(float(((reference - other) ** 2).mean()), 1e-30)
    return float(10 * np.log10((reference**2).mean() / noise))


def test_a_value_that_is_an_output_too_keeps_its_name(make_model: Any) -> None:
    model = make_model(
        "g (float[N,8,6,6] x, float[8,8,1,1] w) => (float[N,8,6,6] a, float[N,8,6,6] y)"
        "{ a = Conv(x, w) r = Relu(a) y = Conv(r, w) }",
        w=CONV,
    )
    data = pictures()

    quantised, _ = quantize(model, data, PLAIN)

    before, after = outputs(model, data), outputs(checked(quantised), data)
    assert list(after) == ["a", "y"]
    assert closeness_db(before["a"], after["a"]) > 30
    assert closeness_db(before["y"], after["y"]) > 25


def test_a_subgraph_reads_the_floats_of_what_is_in_integers(make_model: Any) -> None:
    model = make_model(
        "g (float[N,8,6,6] x, float[8,8,1,1] w) => (float[N,8,6,6] y)"
        "{ a = Conv(x, w) b = Conv(a, w) l = ReduceMax<keepdims=0>(x) h = Cast<to=9>(l) "
        "y = If(h) <then_branch = t () => (float[N,8,6,6] p)"
        "{ p = Relu(a) }, else_branch = e () => (float[N,8,6,6] q) { q = Add(a, b) }> }",
        w=CONV,
    )
    data = pictures(4)

    quantised, report = quantize(model, data, PLAIN)

    assert closeness_db(outputs(model, data)["y"], outputs(checked(quantised), data)["y"]) > 30
    assert any("control flow" in skipped.why for skipped in report.skipped)


def test_a_shared_weight_is_stored_once(make_model: Any) -> None:
    model = make_model(
        "g (float[N,8,6,6] x, float[8,8,1,1] w) => (float[N,8,6,6] y)"
        "{ a = Conv(x, w) y = Conv(a, w) }",
        w=CONV,
    )

    quantised, _ = quantize(model, pictures(), PLAIN)

    names = [name for name in quantised.graph.initializers if name.startswith("w")]
    assert sorted(names) == ["w_quantized", "w_scale", "w_zero_point"]


def test_a_bias_is_int32_with_the_scale_of_the_sums(make_model: Any) -> None:
    bias = RNG.normal(size=8).astype(np.float32)
    model = make_model(
        "g (float[N,8] x, float[8,8] w, float[8] b) => (float[N,8] y) { y = Gemm(x, w, b) }",
        w=MATRIX,
        b=bias,
    )

    quantised, _ = quantize(model, {"x": RNG.normal(size=(16, 8)).astype(np.float32)}, PLAIN)

    constants = {n: v.const_value.numpy() for n, v in quantised.graph.initializers.items()}
    (stored,) = [array for array in constants.values() if array.dtype == np.int32 and array.any()]
    scale = constants["x_scale"] * constants["w_scale"]
    np.testing.assert_allclose(stored * scale, bias, atol=float(scale.max()) / 2)


def test_a_bias_far_above_its_weights_still_fits(make_model: Any) -> None:
    model = make_model(
        "g (float[N,8] x, float[8,8] w, float[8] b) => (float[N,8] y) { y = Gemm(x, w, b) }",
        w=MATRIX * np.float32(1e-9),
        b=np.full(8, 3, np.float32),
    )
    data = {"x": RNG.normal(size=(16, 8)).astype(np.float32)}

    quantised, _ = quantize(model, data, PLAIN)

    np.testing.assert_allclose(outputs(quantised, data)["y"], 3, rtol=1e-3)


def test_tokens_become_rows_and_stay_integers_on_the_way(make_model: Any) -> None:
    table = RNG.normal(size=(300, 8)).astype(np.float32)
    model = make_model(
        "g (int64[N,4] i, float[300,8] e, float[8,8] w) => (float[N,4,8] r, float[N,4,8] y)"
        "{ r = Gather(e, i) y = MatMul(r, w) }",
        e=table,
        w=MATRIX,
    )
    data = {"i": RNG.integers(0, 300, (16, 4))}

    quantised, report = quantize(model, data, PLAIN)

    before, after = outputs(model, data), outputs(checked(quantised), data)
    assert closeness_db(before["r"], after["r"]) > 35
    assert closeness_db(before["y"], after["y"]) > 30
    assert report.after.size_bytes < 0.4 * report.before.size_bytes


def test_the_scale_of_a_clip_lets_no_integer_pass_its_bound(make_model: Any) -> None:
    model = make_model(
        "g (float[N,8,6,6] x, float[8,8,1,1] w) => (float[N,8,6,6] y)"
        "{ l = Constant<value_float=0.0>() h = Constant<value_float=0.7>() a = Conv(x, w) "
        "c = Clip(a, l, h) y = Conv(c, w) }",
        w=CONV * 10,
    )

    quantised, report = quantize(model, pictures(), PLAIN)

    (kernels,) = [step for step in report.steps if step.name == "kernels"]
    assert "Clip" not in kernels.detail["kernels"]
    scale = quantised.graph.initializers["c_scale"].const_value
    assert scale is not None
    assert np.float32(255) * scale.numpy() <= np.float32(0.7)


ACTIVATIONS = ("Relu", "Sigmoid", "LeakyRelu", "HardSwish", "Tanh", "Identity")
LINKS = ("Add", "Mul", "Concat", "MaxPool", "Transpose", "None")


@settings(max_examples=25, deadline=None)
@given(
    blocks=st.lists(
        st.tuples(st.sampled_from(ACTIVATIONS), st.sampled_from(LINKS)), min_size=1, max_size=4
    )
)
def test_fused_kernels_and_float_arithmetic_of_any_chain_agree(
    blocks: list[tuple[str, str]],
) -> None:
    model = chain(blocks)
    data = {"x": np.random.default_rng(1).normal(size=(4, 8, 8, 8)).astype(np.float32)}

    quantised, report = quantize(model, data, PLAIN)

    before = outputs(model, data)["y"]
    plain, fused = (outputs(quantised, data, optimise=o)["y"] for o in (False, True))
    (kernels,) = [step for step in report.steps if step.name == "kernels"]
    assert kernels.detail["unfused"] == []
    assert closeness_db(before, fused) > 15
    assert closeness_db(plain, fused) > closeness_db(before, plain) - 6


def chain(blocks: list[tuple[str, str]]) -> ir.Model:
    """Conv, activation and a link to what was before, as often as there are blocks."""
    rng = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for number, (activation, link) in enumerate(blocks):
        conv, active, out = f"c{number}", f"a{number}", f"o{number}"
        weights.append(rng.normal(0, 0.35, (8, 8, 1, 1)).astype(np.float32))
        nodes.append(onnx.helper.make_node("Conv", [last, f"w{number}"], [conv], conv))
        nodes.append(onnx.helper.make_node(activation, [conv], [active], active))
        match link:
            case "Add" | "Mul":
                nodes.append(onnx.helper.make_node(link, [active, last], [out], out))
            case "Concat":
                nodes.append(onnx.helper.make_node(link, [active, last], [out], out, axis=2))
            case "MaxPool":
                extra = {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]}
                nodes.append(onnx.helper.make_node(link, [active], [out], out, **extra))
            case "Transpose":
                nodes.append(onnx.helper.make_node(link, [active], [out], out, perm=[0, 1, 3, 2]))
            case _:
                out = active
        last = out
    weights.append(rng.normal(0, 0.35, (8, 8, 1, 1)).astype(np.float32))
    nodes.append(onnx.helper.make_node("Conv", [last, f"w{len(blocks)}"], ["y"], "last"))
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("x", onnx.TensorProto.FLOAT, ["N", 8, 8, 8])],
        [value("y", onnx.TensorProto.FLOAT, ["N", 8, "H", "W"])],
        [onnx.numpy_helper.from_array(array, f"w{n}") for n, array in enumerate(weights)],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8))


@pytest.mark.parametrize("opset", [9, 12])
def test_old_operator_sets_and_weights_in_constant_nodes(make_model: Any, opset: int) -> None:
    from trimton.transforms.graph.normalise import normalise

    model = make_model(
        "g (float[N,8,6,6] x, float[8,8,1,1] w) => (float[N,8,6,6] y)"
        "{ a = Conv(x, w) r = Relu(a) y = Conv(r, w) }",
        opset=opset,
        w=CONV,
    )
    initializer = model.graph.initializers.pop("w")
    constant = ir.Node(
        "", "Constant", [], [ir.AttrTensor("value", initializer.const_value)], name="constant"
    )
    initializer.replace_all_uses_with(constant.outputs[0])
    model.graph.insert_before(next(iter(model.graph)), constant)
    constant.outputs[0].name = "w"
    data = pictures()

    quantised, _ = quantize(normalise(model), data, PLAIN)

    assert closeness_db(outputs(model, data)["y"], outputs(checked(quantised), data)["y"]) > 25
