"""Casting: what is stored and what computes in half precision, islands, interfaces, refusals."""

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
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.save import save_model
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.precision import CastSettings, cast, islands

GPU = CastSettings(target="gpu")
FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
MLP = (
    "g (float[N,64] x, float[64,64] w, float[64] b, float[64,64] v) => (float[N,64] y)"
    "{ a = MatMul(x, w) c = Add(a, b) d = Relu(c) y = MatMul(d, v) }"
)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def mlp(make_model: Any) -> Any:
    return make_model(MLP, w=normal(64, 64), b=normal(64), v=normal(64, 64, seed=1))


def outputs(model: ir.Model, **feeds: Any) -> list[Any]:
    return list(run(open_session(model, optimise=True), feeds).values())


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph))


def optimised(model: ir.Model, folder: Path) -> list[str]:
    """The operators that the runtime makes of ``model``."""
    save_model(model, folder / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(folder / "model.onnx", options)
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


def in_half(model: ir.Model) -> set[str]:
    """The operators, but for Casts, that make half precision."""
    return {
        node.op_type
        for node in model.graph
        if node.op_type != "Cast" and any(v.dtype == HALF for v in node.outputs)
    }


@pytest.mark.parametrize("to", ["float16", "bfloat16"])
def test_for_a_cpu_weights_are_stored_in_half_and_computed_in_float32(
    make_model: Any, tmp_path: Path, to: str
) -> None:
    made, report = cast(mlp(make_model), CastSettings(to=to))

    assert report.after.size_bytes < 0.55 * report.before.size_bytes
    assert report.max_relative_difference is not None
    assert report.max_relative_difference < 0.02
    # The runtime folds the Casts when it loads the model: nothing is left to do at each run.
    assert operators(made)["Cast"] == 2
    assert optimised(made, tmp_path) == optimised(mlp(make_model), tmp_path)


def test_for_a_gpu_all_of_a_network_computes_in_half(make_model: Any) -> None:
    model = mlp(make_model)

    made, report = cast(model, GPU)

    assert in_half(made) == {"MatMul", "Add", "Relu"}
    assert operators(made)["Cast"] == 2
    assert [(v.name, v.dtype) for v in made.graph.outputs] == [("y", FLOAT)]
    x = normal(5, 64, seed=2)
    np.testing.assert_allclose(outputs(made, x=x)[0], outputs(model, x=x)[0], atol=0.5)
    (step,) = (one for one in report.steps if one.name == "compute")
    assert step.count == 4


def test_inputs_and_outputs_may_be_half_too(make_model: Any) -> None:
    model = mlp(make_model)

    made, _ = cast(model, CastSettings(target="gpu", keep_io=False))

    assert operators(made)["Cast"] == 0
    interface = [*made.graph.inputs, *made.graph.outputs]
    assert [(v.name, v.dtype) for v in interface] == [("x", HALF), ("y", HALF)]
    x = normal(5, 64, seed=2)
    (got,) = outputs(made, x=x.astype(np.float16))
    np.testing.assert_allclose(got.astype(np.float32), outputs(model, x=x)[0], atol=0.5)


def test_half_inputs_reach_float32_nodes_through_a_cast(make_model: Any) -> None:
    model = make_model(
        "g (float[N,64] x, float[64,64] w) => (float[N,64] y, float[N,64] z)"
        "{ y = MatMul(x, w) i = Constant<value_int=1>() z = CumSum(x, i) }",
        w=normal(64, 64),
    )

    made, report = cast(model, CastSettings(target="gpu", keep_io=False))

    assert {v.dtype for v in (*made.graph.inputs, *made.graph.outputs)} == {HALF}
    assert any("sums or multiplies many numbers" in one.why for one in report.skipped)
    x = normal(3, 64, seed=2)
    got, want = outputs(made, x=x.astype(np.float16)), outputs(model, x=x)
    for new, old in zip(got, want, strict=True):
        np.testing.assert_allclose(new.astype(np.float32), old, atol=0.5)


# One node in the middle of a network in half precision, and why it stays in float32.
ISLANDS = {
    "b = Mul(a, huge)": "its constant holds 1e+38, and float16 ends at 65504",
    "b = Add(a, tiny)": "its constant holds numbers too small for float16, such as 1e-12",
    "s = Mul(a, large) b = Mul(s, fraction)": "s reaches",
    "i = Constant<value_int=1>() b = CumSum(a, i)": "it sums or multiplies many numbers",
    "i = Cast<to=7>(a) b = Cast<to=1>(i)": "whole numbers above 2048 do not fit into float16",
    "b = Relu(a)": "excluded by name",
}
SCALARS = {"huge": 1e38, "tiny": 1e-12, "large": 5e4, "fraction": 1e-4}
SCALARS_DECLARED = ", ".join(f"float {name}" for name in SCALARS)


@pytest.mark.parametrize("middle", ISLANDS)
def test_islands_compute_in_float32_and_say_why(make_model: Any, middle: str) -> None:
    model = make_model(
        f"g (float[N,64] x, float[64,64] w, float[64,64] v, {SCALARS_DECLARED})"
        f"=> (float[N,64] y) {{ a = MatMul(x, w) {middle} d = Tanh(b) y = MatMul(d, v) }}",
        domains=', "com.microsoft" : 1',
        w=normal(64, 64),
        v=normal(64, 64, seed=1),
        **{name: np.float32(number) for name, number in SCALARS.items()},
    )
    exclude = ("n1",) if "Relu" in middle else ()

    made, report = cast(model, CastSettings(target="gpu", exclude=exclude))

    assert any(ISLANDS[middle] in one.why for one in report.skipped)
    assert [n.op_type for n in made.graph if n.outputs[0].dtype == HALF].count("MatMul") == 2
    assert operators(made)["Cast"] == 4 + operators(model)["Cast"]
    onnx.checker.check_model(ir.serde.serialize_model(made), full_check=True)
    x = normal(4, 64, seed=2)
    (got,), (want,) = outputs(made, x=x), outputs(model, x=x)
    np.testing.assert_allclose(got, want, atol=0.05 * np.abs(want).max())


def test_what_reads_a_value_of_unknown_type_stays_in_float32(make_model: Any) -> None:
    model = make_model(
        "g (float[N,64] x, float[64,64] w, float[64,64] v) => (float[N,64] y)"
        "{ a = MatMul(x, w) b = com.microsoft.Gelu(a) y = MatMul(b, v) }",
        domains=', "com.microsoft" : 1',
        w=normal(64, 64),
        v=normal(64, 64, seed=1),
    )

    made, report = cast(model, GPU)

    whys = {one.what: one.why for one in report.skipped}
    assert whys["n1"] == "it is no operator of the ONNX standard"
    assert whys["n2"] == "the type of b is not known"
    assert in_half(made) == {"MatMul"}


def test_what_shares_a_weight_reads_it_in_its_own_type(make_model: Any) -> None:
    model = make_model(
        "g (float[64,64] x, float[64,64] w) => (float[64,64] y, float[64,64] z)"
        "{ y = MatMul(x, w) i = Constant<value_int=0>() z = CumSum(w, i) }",
        w=normal(64, 64),
    )

    made, report = cast(model, GPU)

    x = normal(64, 64, seed=2)
    for new, old in zip(outputs(made, x=x), outputs(model, x=x), strict=True):
        np.testing.assert_allclose(new, old, atol=0.5)
    (weights,) = (step for step in report.steps if step.name == "weights")
    assert weights.detail == {"stored": ["w"], "restored": ["w"]}


def test_parameters_that_are_float32_by_the_standard_stay(make_model: Any) -> None:
    model = make_model(
        "g (float[1,8,6,6] x, float[8,8,3,3] w, float[4] s) => (float[A,B,C,D] y)"
        '{ a = Conv(x, w) y = Resize<mode="nearest">(a, , s) }',
        w=normal(8, 8, 3, 3),
        s=np.array([1, 1, 2, 2], np.float32),
    )

    made, _ = cast(model, GPU)

    resize = next(node for node in made.graph if node.op_type == "Resize")
    assert resize.inputs[0] is not None
    assert resize.inputs[2] is not None
    assert (resize.inputs[0].dtype, resize.inputs[2].dtype) == (HALF, FLOAT)


def test_branches_are_stored_in_half_and_read_what_they_capture_in_float32(
    make_model: Any,
) -> None:
    model = make_model(
        "g (bool c, float[N,64] x, float[64,64] w, float[64,64] v) => (float[N,64] y) {"
        "h = MatMul(x, w)"
        "y = If(c) <then_branch = a () => (float[N,64] t) { t = MatMul(h, v) },"
        "else_branch = b () => (float[N,64] e) { e = Relu(h) }> }",
        w=normal(64, 64),
        v=normal(64, 64, seed=1),
    )

    made, report = cast(model, GPU)

    assert report.after.size_bytes < 0.6 * report.before.size_bytes
    assert any("control flow" in one.why for one in report.skipped)
    x = normal(3, 64, seed=2)
    for truth in (True, False):
        feeds = {"c": np.array(truth), "x": x}
        np.testing.assert_allclose(outputs(made, **feeds)[0], outputs(model, **feeds)[0], atol=1)


def test_samples_tell_how_large_values_become(make_model: Any) -> None:
    model = make_model(
        "g (float[N,64] x, float[64,64] w, float[64,64] v) => (float[N,64] y)"
        "{ a = MatMul(x, w) y = MatMul(a, v) }",
        w=normal(64, 64),
        v=1e-4 * normal(64, 64, seed=1),
    )

    _, calm = cast(model, GPU)
    _, wild = cast(model, GPU, {"x": 1e4 * normal(8, 64, seed=2)})

    assert not any("reaches" in one.why for one in calm.skipped)
    assert any(one.why.startswith("a reaches") for one in wild.skipped)


def test_where_a_cpu_has_kernels_products_compute_in_half(
    make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(islands, "has_kernel", lambda node, *_: node.op_type != "Relu")

    made, report = cast(mlp(make_model), CastSettings())

    assert [n.op_type for n in made.graph if n.outputs[0].dtype == HALF].count("MatMul") == 2
    relu = next(node for node in made.graph if node.op_type == "Relu")
    assert relu.outputs[0].dtype == FLOAT
    assert any("has no float16 kernel for it" in one.why for one in report.skipped)


def test_a_second_cast_finds_nothing_to_do(make_model: Any) -> None:
    for settings in (CastSettings(), GPU):
        made, _ = cast(mlp(make_model), settings)
        with pytest.raises(UnsupportedModelError, match="nothing to cast to float16"):
            cast(made, settings)


def test_quantised_models_and_old_operator_sets_are_refused(make_model: Any) -> None:
    quantised = make_model(
        "g (float[N] x, float s, uint8 z) => (uint8[N] y) { y = QuantizeLinear(x, s, z) }",
        s=np.float32(1),
        z=np.uint8(0),
    )
    with pytest.raises(UnsupportedModelError, match="quantised already"):
        cast(quantised)
    old = make_model("g (float[N] x) => (float[N] y) { y = Relu(x) }", opset=11)
    with pytest.raises(UnsupportedModelError, match=r"bfloat16 needs operator set 13.*has 11"):
        cast(old, CastSettings(to="bfloat16"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"to": "float8"}, "to 'float8': is not known; choose float16, bfloat16"),
        ({"target": "tpu"}, "target 'tpu': is not known; choose cpu, gpu"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CastSettings(**wrong)


def test_an_exclusion_of_nothing_is_an_error(make_model: Any) -> None:
    with pytest.raises(InputError, match="exclusion 'nowhere': no node has this name"):
        cast(mlp(make_model), CastSettings(exclude=("nowhere",)))
