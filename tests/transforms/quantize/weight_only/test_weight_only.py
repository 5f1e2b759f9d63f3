"""Weight-only quantisation: operators against numpy, what is left alone, samples that help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.quantize.weight_only import WeightOnlySettings, quantize_weights
from trimton.transforms.quantize.weight_only.blocks import closest_blocks

SETTINGS = [
    WeightOnlySettings(bits=bits, block=block, symmetric=symmetric, compute="float32")
    for bits in (4, 8)
    for block in (16, 32, 64, 128, 256)
    for symmetric in (True, False)
]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def outputs(model: ir.Model, **feeds: Array) -> list[Any]:
    return list(run(open_session(model, optimise=True), feeds).values())


def optimised(model: ir.Model, folder: Path) -> list[str]:
    """The operators that the runtime makes of ``model``."""
    ir.save(model, folder / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(folder / "model.onnx", options)
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph)]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_product_computes_with_the_weights_that_blocks_stand_for(
    make_model: Any, settings: WeightOnlySettings
) -> None:
    weight = normal(144, 80)
    model = make_model(
        "g (float[N,7,144] x, float[144,80] w) => (float[N,7,80] y) { y = MatMul(x, w) }", w=weight
    )

    made, report = quantize_weights(model, settings)

    x = normal(2, 7, 144, seed=1)
    want = x @ closest_blocks(np.ascontiguousarray(weight.T), settings.form).dequantised().T
    np.testing.assert_allclose(outputs(made, x=x)[0], want, rtol=1e-4, atol=1e-4)
    assert operators(made) == ["MatMulNBits"]
    assert report.after.size_bytes < 0.55 * report.before.size_bytes
    assert report.max_relative_difference is not None
    assert report.max_relative_difference < (0.3 if settings.bits == 4 else 0.02)


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("bias", [(80,), (1, 80), (1,), None])
def test_a_gemm_keeps_its_bias_and_factors(
    make_model: Any, is_transposed: bool, bias: tuple[int, ...] | None
) -> None:
    weight = normal(80, 144) if is_transposed else normal(144, 80)
    weights: dict[str, Any] = {"w": weight}
    declared, read = f"float[{weight.shape[0]},{weight.shape[1]}] w", "x, w"
    if bias is not None:
        weights["c"] = normal(*bias, seed=3)
        declared += f", float[{','.join(map(str, bias))}] c"
        read += ", c"
    model = make_model(
        f"g (float[N,144] x, {declared}) => (float[N,80] y)"
        f"{{ y = Gemm<alpha=0.5, beta=2.0, transB={int(is_transposed)}>({read}) }}",
        **weights,
    )

    made, _ = quantize_weights(model, WeightOnlySettings(bits=8, block=16, compute="float32"))

    x = normal(5, 144, seed=1)
    np.testing.assert_allclose(outputs(made, x=x)[0], outputs(model, x=x)[0], atol=0.1)
    assert operators(made) == ["MatMulNBits"]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_table_is_looked_up_in_blocks(make_model: Any, settings: WeightOnlySettings) -> None:
    table = normal(50, 144)
    model = make_model(
        "g (int64[N,L] i, float[50,144] t) => (float[N,L,144] y) { y = Gather(t, i) }", t=table
    )

    made, _ = quantize_weights(model, settings)

    picked = np.array([[0, 49, -1], [7, 7, 3]])
    want = closest_blocks(table, settings.form).dequantised()[picked]
    np.testing.assert_allclose(outputs(made, i=picked)[0], want, rtol=1e-6, atol=1e-6)
    assert operators(made) == ["GatherBlockQuantized"]


def test_kernels_may_round_what_they_read_unless_told_not_to(make_model: Any) -> None:
    model = make_model(
        "g (float[N,256] x, float[256,80] w) => (float[N,80] y) { y = MatMul(x, w) }",
        w=normal(256, 80),
    )
    made = [
        quantize_weights(model, WeightOnlySettings(bits=8, compute=compute))[0]
        for compute in ("float32", "int8")
    ]

    x = normal(4, 256, seed=1)
    exact, rounded = (outputs(one, x=x)[0] for one in made)

    assert not np.array_equal(exact, rounded)
    np.testing.assert_allclose(rounded, exact, atol=0.02 * np.abs(exact).max())


def test_a_weight_shared_by_products_is_stored_once(make_model: Any) -> None:
    model = make_model(
        "g (float[N,64] x, float[64,64] w) => (float[N,64] y)"
        "{ a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }",
        w=normal(64, 64),
    )

    made, _ = quantize_weights(model)

    assert operators(made) == ["MatMulNBits", "Relu", "MatMulNBits"]
    assert len(made.graph.initializers) == 2


def test_a_table_that_is_a_weight_too_serves_both(make_model: Any) -> None:
    table = normal(100, 64)
    model = make_model(
        "g (int64[N] i, float[100,64] t) => (float[N,100] y)"
        "{ a = Gather(t, i) y = Gemm<transB=1>(a, t) }",
        t=table,
    )

    made, _ = quantize_weights(model, WeightOnlySettings(bits=8, compute="float32"))

    assert operators(made) == ["GatherBlockQuantized", "MatMulNBits"]
    picked = np.array([3, 99])
    np.testing.assert_allclose(outputs(made, i=picked)[0], table[picked] @ table.T, atol=0.5)


LEFT_ALONE = {
    "it multiplies two activations": "y = MatMul(x, x)",
    "its weight is the first factor": "y = MatMul(w, x)",
    "its weight is small (fewer than 4096 numbers)": "y = MatMul(x, small)",
    "it reads its rows transposed": "y = Gemm<transA=1>(x, w)",
    "what it adds is no constant vector": "y = Gemm(x, w, x)",
    "reads its weight, too, which would be stored twice": "a = MatMul(x, w) y = Add(a, w)",
    "convolutions have no kernel for weights in blocks": (
        "s = Constant<value_ints=[1,1,64,64]>() a = Reshape(x, s) b = Reshape(w, s)"
        "c = Conv(a, b) q = Constant<value_ints=[1,1]>() y = Reshape(c, q)"
    ),
    "take the model from before it was fused": "y = com.microsoft.FusedMatMul(x, w)",
    "excluded by name": "y = MatMul(x, w)",
}


@pytest.mark.parametrize("why", LEFT_ALONE)
def test_what_stays_in_float_has_a_reason(make_model: Any, why: str) -> None:
    model = make_model(
        "g (float[64,64] x, float[64,64] w, float[64,16] small, float[64,64] v)"
        f"=> (float[A,B] y, float[64,64] z) {{ {LEFT_ALONE[why]} z = MatMul(x, v) }}",
        domains=', "com.microsoft" : 1',
        w=normal(64, 64),
        small=normal(64, 16),
        v=normal(64, 64),
    )
    exclude = ("n0",) if why == "excluded by name" else ()

    made, report = quantize_weights(model, WeightOnlySettings(exclude=exclude))

    assert operators(made).count("MatMulNBits") == 1
    assert any(why in skipped.why for skipped in report.skipped)


def test_branches_are_stored_in_blocks_too(make_model: Any) -> None:
    model = make_model(
        "g (bool c, float[N,64] x, float[64,64] w) => (float[N,64] y) {"
        "y = If(c) <then_branch = a () => (float[N,64] t) { t = MatMul(x, w) },"
        "else_branch = b () => (float[N,64] e) { e = Relu(x) }> }",
        w=normal(64, 64),
    )

    made, _ = quantize_weights(model, WeightOnlySettings(bits=8))

    assert sorted(operators(made)) == ["If", "MatMulNBits", "Relu"]
    x = normal(3, 64, seed=1)
    for truth in (True, False):
        feeds = {"c": np.array(truth), "x": x}
        want = outputs(model, **feeds)[0]
        np.testing.assert_allclose(outputs(made, **feeds)[0], want, atol=0.3)


def test_samples_bring_the_outputs_closer(make_model: Any) -> None:
    mixing = normal(128, 128, seed=5)
    data = {"x": normal(256, 128, seed=6) @ mixing}
    model = make_model(
        "g (float[N,128] x, float[128,96] w) => (float[N,96] y) { y = MatMul(x, w) }",
        w=normal(128, 96),
    )
    settings = WeightOnlySettings(compute="float32")

    plain, _ = quantize_weights(model, settings)
    helped, report = quantize_weights(model, settings, data)

    x = normal(64, 128, seed=7) @ mixing
    want = outputs(model, x=x)[0]
    errors = [np.square(outputs(one, x=x)[0] - want).sum() for one in (plain, helped)]
    assert errors[1] < 0.8 * errors[0]
    (step,) = report.steps
    assert "compensated rounding left" in step.what


def test_a_quantised_model_is_refused(make_model: Any) -> None:
    model = make_model(
        "g (float[N,64] x, float[64,64] w) => (float[N,64] y) { y = MatMul(x, w) }",
        w=normal(64, 64),
    )
    made, _ = quantize_weights(model)

    with pytest.raises(UnsupportedModelError, match=r"quantised already.*MatMulNBits"):
        quantize_weights(made)


def test_a_model_without_large_matrices_is_refused_with_the_reason(make_model: Any) -> None:
    model = make_model(
        "g (float[N,4] x, float[4,4] w) => (float[N,4] y) { y = MatMul(x, w) }", w=normal(4, 4)
    )

    with pytest.raises(UnsupportedModelError, match=r"nothing to store in blocks.*is small"):
        quantize_weights(model)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bits": 3}, "bits 3: is not known; choose 4, 8"),
        ({"block": 48}, "block 48: is not known; choose 16, 32"),
        ({"compute": "int4"}, "compute 'int4': is not known"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        WeightOnlySettings(**wrong)


def test_an_exclusion_of_nothing_is_an_error(make_model: Any) -> None:
    model = make_model(
        "g (float[N,64] x, float[64,64] w) => (float[N,64] y) { y = MatMul(x, w) }",
        w=normal(64, 64),
    )
    with pytest.raises(InputError, match="exclusion 'nowhere': no node has this name"):
        quantize_weights(model, WeightOnlySettings(exclude=("nowhere",)))


RESTORED = {
    "convolution": (
        "g (float[N,16,8,8] x, float[32,16,3,3] w) => (float[N,32,6,6] y) { y = Conv(x, w) }",
        (32, 16, 3, 3),
        (1, 2, 3),
    ),
    "transposed convolution": (
        (
            "g (float[N,16,8,8] x, float[16,32,3,3] w) => (float[N,32,10,10] y)"
            "{ y = ConvTranspose(x, w) }"
        ),
        (16, 32, 3, 3),
        (0, 2, 3),
    ),
    "recurrent layer": (
        (
            "g (float[5,N,24] x, float[1,128,24] w, float[1,128,32] r) => (float[5,1,N,32] y)"
            "{ y = LSTM<hidden_size=32>(x, w, r) }"
        ),
        (1, 128, 24),
        (2,),
    ),
}


@pytest.mark.parametrize("kind", RESTORED)
def test_restored_weights_are_within_half_a_step_and_gone_once_loaded(
    make_model: Any, tmp_path: Path, kind: str
) -> None:
    graph, shape, summed = RESTORED[kind]
    weight = 0.1 * normal(*shape)
    weights = {"w": weight} | ({"r": 0.1 * normal(1, 128, 32)} if "LSTM" in graph else {})
    model = make_model(graph, **weights)

    made, report = quantize_weights(model, WeightOnlySettings(restore=True))

    integers = made.graph.initializers["w_quantized"].const_value
    scale = made.graph.initializers["w_scale"].const_value
    assert integers is not None
    assert scale is not None
    steps = scale.numpy()
    assert steps.shape == tuple(1 if axis in summed else n for axis, n in enumerate(shape))
    restored = integers.numpy() * steps
    # Scales of least squared error may cut off the largest weights.
    is_inside = np.abs(integers.numpy()) < 127
    assert (np.abs(restored - weight) <= 0.501 * steps)[is_inside].all()
    assert is_inside.mean() > 0.95
    assert report.after.size_bytes < 0.4 * report.before.size_bytes
    assert optimised(made, tmp_path) == optimised(model, tmp_path)


def test_weights_that_something_else_reads_or_that_are_excluded_are_not_restored(
    make_model: Any,
) -> None:
    model = make_model(
        "g (float[N,16,8,8] x, float[32,16,3,3] w, float[32,16,3,3] v, float[4,16,3,3] s)"
        "=> (float[N,32,6,6] y, float[N,32,6,6] z, float[N,4,6,6] u, float[N,32,6,6] q) {"
        "y = Conv(x, w) z = Conv(x, v) u = Conv(x, s) q = Conv(x, v) }",
        w=normal(32, 16, 3, 3),
        v=normal(32, 16, 3, 3, seed=1),
        s=normal(4, 16, 3, 3, seed=2),
    )

    made, report = quantize_weights(model, WeightOnlySettings(restore=True, exclude=("n0",)))

    assert operators(made).count("Cast") == 1
    assert {(one.what, one.why) for one in report.skipped} == {
        ("n0", "excluded by name"),
        ("n2", "its weight is small (fewer than 1024 numbers)"),
    }
