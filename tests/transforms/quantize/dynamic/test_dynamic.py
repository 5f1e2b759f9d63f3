"""Dynamic quantisation: integers against numpy, one kernel for each product, LSTMs, refusals."""

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
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.quantize.dynamic import DynamicSettings, quantize_dynamic
from trimton.transforms.quantize.integer_rows import integer_rows
from trimton.transforms.quantize.weights.pairs import saturating_pairs

VNNI = DynamicSettings(target="avx512_vnni")
PRODUCT = "g (float[N,7,128] x, float[128,80] w) => (float[N,7,80] y) { y = MatMul(x, w) }"


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def outputs(model: ir.Model, *, optimise: bool = True, **feeds: Any) -> list[Any]:
    return list(run(open_session(model, optimise=optimise), feeds).values())


def noise(new: Array, old: Array) -> float:
    """The root mean square of the difference, relative to that of ``old``."""
    return float(np.sqrt(np.square(new - old).mean() / np.square(old).mean()))


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph))


def fused(model: ir.Model, folder: Path) -> Counter[str]:
    """The operators that the runtime makes of ``model``."""
    ir.save(model, folder / "dynamic.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(folder / "dynamic.onnx", options)
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


def rounded(x: Array) -> Array:
    """``x`` as DynamicQuantizeLinear of the ONNX specification passes it on."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = np.float32((high - low) / 255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    steps = np.clip(np.rint(x / scale) + zero, 0, 255) - zero
    values: Array = (steps * scale).astype(np.float32)
    return values


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_product_multiplies_the_integers_that_the_specification_says(
    make_model: Any, per_channel: bool
) -> None:
    weight = normal(128, 80)
    settings = DynamicSettings(target="avx512_vnni", per_channel=per_channel)

    made, report = quantize_dynamic(make_model(PRODUCT, w=weight), settings)

    x = normal(2, 7, 128, seed=1) + 0.5
    rows = integer_rows(np.ascontiguousarray(weight.T), per_channel=per_channel, saturates=False)
    want = rounded(x) @ rows.dequantised().T
    np.testing.assert_allclose(outputs(made, optimise=False, x=x)[0], want, atol=1e-3)
    assert report.after.size_bytes < 0.35 * report.before.size_bytes
    assert report.max_relative_difference is not None
    assert report.max_relative_difference < 0.03


@pytest.mark.parametrize("target", ["avx2", "avx512_vnni"])
def test_the_runtime_makes_one_kernel_of_a_product(
    make_model: Any, tmp_path: Path, target: str
) -> None:
    model = make_model(
        "g (float[N,128] x, float[128,80] w, float[80] c) => (float[N,80] y)"
        "{ y = Gemm<alpha=0.5>(x, w, c) }",
        w=normal(128, 80),
        c=normal(80, seed=2),
    )

    made, _ = quantize_dynamic(model, DynamicSettings(target=target))

    assert fused(made, tmp_path) == {"DynamicQuantizeMatMul": 1}
    x = normal(9, 128, seed=1)
    want = outputs(model, x=x)[0]
    for optimise in (True, False):
        assert noise(outputs(made, optimise=optimise, x=x)[0], want) < 0.03


def test_what_several_products_read_is_quantised_once(make_model: Any) -> None:
    model = make_model(
        "g (float[N,64] x, float[64,64] q, float[64,64] k) => (float[N,64] y)"
        "{ a = MatMul(x, q) b = MatMul(x, k) y = Add(a, b) }",
        q=normal(64, 64),
        k=normal(64, 64, seed=1),
    )

    made, _ = quantize_dynamic(model, VNNI)

    assert operators(made)["DynamicQuantizeLinear"] == 1
    assert operators(made)["MatMulInteger"] == 2


def test_weights_saturate_only_where_the_target_adds_in_more_than_16_bits() -> None:
    rows = np.sign(normal(16, 1)) * (1 + 0.01 * np.abs(normal(16, 64)))

    bounded = integer_rows(rows, per_channel=True, saturates=True)
    free = integer_rows(rows, per_channel=True, saturates=False)

    assert saturating_pairs(bounded.integers) == 0
    assert saturating_pairs(free.integers) > 0


def test_branches_quantise_what_they_capture_for_themselves(make_model: Any) -> None:
    model = make_model(
        "g (bool c, float[N,64] x, float[64,64] w) => (float[N,64] y) {"
        "y = If(c) <then_branch = a () => (float[N,64] t) { t = MatMul(x, w) },"
        "else_branch = b () => (float[N,64] e) { m = MatMul(x, w) e = Relu(m) }> }",
        w=normal(64, 64),
    )

    made, _ = quantize_dynamic(model, VNNI)

    assert operators(made)["DynamicQuantizeLinear"] == 2
    x = normal(3, 64, seed=1)
    for truth in (True, False):
        feeds: dict[str, Any] = {"c": np.array(truth), "x": x}
        np.testing.assert_allclose(outputs(made, **feeds)[0], outputs(model, **feeds)[0], atol=0.3)


def lstm(make_model: Any, direction: str = "forward", extra: str = "", **attributes: int) -> Any:
    directions = 2 if direction == "bidirectional" else 1
    weights = {
        "w": 0.3 * normal(directions, 128, 24),
        "r": 0.3 * normal(directions, 128, 32, seed=1),
        "b": 0.1 * normal(directions, 256, seed=2),
        "p": 0.1 * normal(directions, 96, seed=3),
    }
    layout = "".join(f", {name}={value}" for name, value in attributes.items())
    declared = ", ".join(
        f"float[{','.join(map(str, array.shape))}] {name}" for name, array in weights.items()
    )
    return make_model(
        f"g (float[T,N,24] x, {declared}) => (float[T,D,N,32] y, float[D,N,32] h) {{ {extra}"
        f'y, h = LSTM<hidden_size=32, direction="{direction}"{layout}>'
        f"(x, {'v' if extra else 'w'}, r, b, , , , p) }}",
        **weights,
    )


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("target", ["avx2", "avx512_vnni"])
def test_an_lstm_stays_close_with_its_bias_and_peepholes(
    make_model: Any, direction: str, target: str
) -> None:
    model = lstm(make_model, direction)

    made, report = quantize_dynamic(model, DynamicSettings(target=target))

    assert operators(made) == {"DynamicQuantizeLSTM": 1}
    x = normal(6, 3, 24, seed=4)
    for new, old in zip(outputs(made, x=x), outputs(model, x=x), strict=True):
        assert noise(new, old) < 0.03
    assert report.after.size_bytes < 0.4 * report.before.size_bytes


def test_lstm_weights_that_nodes_make_of_constants_become_constants(make_model: Any) -> None:
    extra = (
        "s = Constant<value_ints=[0]>() e = Constant<value_ints=[64]>()"
        "f = Constant<value_ints=[128]>() o = Constant<value_ints=[1]>()"
        "first = Slice(w, s, e, o) second = Slice(w, e, f, o) v = Concat<axis=1>(second, first) "
    )

    made, _ = quantize_dynamic(lstm(make_model, extra=extra), VNNI)

    assert operators(made) == {"DynamicQuantizeLSTM": 1}
    assert not any(name.startswith(("w", "second")) for name in made.graph.initializers)


def test_tables_are_stored_in_8_bits(make_model: Any) -> None:
    table = normal(100, 64)
    model = make_model(
        "g (int64[N,L] i, float[100,64] t) => (float[N,L,64] y) { y = Gather(t, i) }", t=table
    )

    made, _ = quantize_dynamic(model, VNNI)

    picked = np.array([[5, 99]])
    np.testing.assert_allclose(outputs(made, i=picked)[0], table[picked], atol=0.02)
    with pytest.raises(UnsupportedModelError, match="tables stay in float"):
        quantize_dynamic(model, DynamicSettings(tables=False))


LEFT_ALONE = {
    "its batch comes first": lambda make: lstm(make, layout=1),
    "it has no 8-bit kernel": lambda make: make(
        "g (float[T,N,24] x, float[1,96,24] w, float[1,96,32] r) => (float[T,D,N,32] y)"
        "{ y = GRU<hidden_size=32>(x, w, r) }",
        w=normal(1, 96, 24),
        r=normal(1, 96, 32),
    ),
    "it multiplies two activations": lambda make: make(
        "g (float[64,64] x) => (float[64,64] y) { y = MatMul(x, x) }"
    ),
    "convolutions with ranges of the moment": lambda make: make(
        "g (float[N,64,8,8] x, float[64,64,1,1] w) => (float[N,64,8,8] y) { y = Conv(x, w) }",
        w=normal(64, 64, 1, 1),
    ),
}


@pytest.mark.parametrize("why", LEFT_ALONE)
def test_a_model_with_nothing_to_quantise_is_refused_with_the_reason(
    make_model: Any, why: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=f"nothing to quantise dynamically.*{why}"):
        quantize_dynamic(LEFT_ALONE[why](make_model), VNNI)


def test_a_quantised_model_is_refused(make_model: Any) -> None:
    made, _ = quantize_dynamic(make_model(PRODUCT, w=normal(128, 80)), VNNI)
    with pytest.raises(UnsupportedModelError, match="quantised already"):
        quantize_dynamic(made, VNNI)


def test_wrong_targets_and_exclusions_are_named(make_model: Any) -> None:
    model = make_model(PRODUCT, w=normal(128, 80))
    with pytest.raises(InputError, match="unknown target 'vax'"):
        quantize_dynamic(model, DynamicSettings(target="vax"))
    with pytest.raises(UnsupportedModelError, match="target tensorrt: has no kernels"):
        quantize_dynamic(model, DynamicSettings(target="tensorrt"))
    with pytest.raises(InputError, match="exclusion 'nowhere': no node has this name"):
        quantize_dynamic(model, DynamicSettings(exclude=("nowhere",)))


def test_an_old_operator_set_is_raised(make_model: Any) -> None:
    model = make_model(PRODUCT, w=normal(128, 80), opset=9)

    made, report = quantize_dynamic(model, VNNI)

    assert made.opset_imports[""] >= 13
    assert report.steps[0].name == "opset"
