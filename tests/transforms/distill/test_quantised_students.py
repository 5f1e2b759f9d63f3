"""A quantised student is trained through its rounding, and stays on its grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.distill.distilling import distill
from trimton.transforms.distill.settings import DistillSettings
from trimton.transforms.distill.straight_through import trainable_form
from trimton.transforms.fuse import fuse
from trimton.transforms.graph.digest import model_digest
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.quantize import QuantizeSettings, quantize

ModelMaker = Callable[..., ir.Model]
Samples = dict[str, np.ndarray]

QUICK = DistillSettings(epochs=8, batch=32, learning_rate=0.003, averaging=0.9, threads=1)


def quantised(model: ir.Model, samples: Samples) -> ir.Model:
    made, report = quantize(fuse(model)[0], samples, QuantizeSettings(target="avx512_vnni"))
    assert report.changed
    return made


def coarse(model: ir.Model, factor: float) -> ir.Model:
    """``model`` with steps of weights (and of biases, which follow) ``factor`` times as large."""
    result = model.clone()
    for node in result.graph:
        value = node.inputs[0] if node.inputs else None
        if node.op_type != "DequantizeLinear" or value is None or not value.is_initializer():
            continue
        tensor, scale = value.const_value, node.inputs[1].const_value
        steps = np.round(tensor.numpy() / factor).astype(tensor.dtype.numpy())
        value.const_value = ir.tensor(steps, name=value.name)
        node.inputs[1].const_value = ir.tensor(
            (scale.numpy() * factor).astype(np.float32), name=node.inputs[1].name
        )
    return result


def integers(model: ir.Model) -> dict[str, np.ndarray]:
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value.dtype in {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32}
        and value.const_value.size > 1
    }


def wiring(model: ir.Model) -> list[tuple[object, ...]]:
    return [
        (node.op_type, *(v and v.name for v in node.inputs), *(v.name for v in node.outputs))
        for node in model.graph
    ]


def test_training_ends_in_the_graph_that_quantising_placed(
    teacher: ir.Model, samples: Samples, tmp_path: Path
) -> None:
    student = coarse(quantised(teacher, samples), 40)
    trained, report = distill(teacher, student, samples, QUICK, tmp_path)
    loss = report.steps[0].detail["loss"]
    old, new = integers(student), integers(trained)

    assert loss["after"] < 0.6 * loss["before"]
    assert wiring(trained) == wiring(student)
    assert any((old[name] != new[name]).any() for name in old)
    for name, value in student.graph.initializers.items():
        same = trained.graph.initializers[name].const_value
        assert (same.dtype, same.shape) == (value.const_value.dtype, value.const_value.shape)
        if name.endswith(("_scale", "_zero_point")):
            np.testing.assert_array_equal(same.numpy(), value.const_value.numpy())


def test_the_form_to_train_computes_the_same_and_goes_back_to_the_same(
    teacher: ir.Model, samples: Samples
) -> None:
    student = quantised(teacher, samples)
    before = model_digest(student)
    form = trainable_form(student)
    expected, found = (run(open_session(m), samples)["logits"] for m in (student, form.model))

    assert form.names
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert model_digest(form.stored(form.model, student)) == before == model_digest(student)


MODEL = """g (float[N,6] x, {dtype}[6,4] w, float[{width}] s, {dtype}[{width}] z)
  => (float[N,4] y) {{ d = DequantizeLinear <axis = 1> (w, s, z)  y = MatMul(x, d) }}"""


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize(("dtype", "low", "high"), [("int8", -128, 127), ("uint8", 0, 255)])
@given(data=st.data())
def test_weights_are_put_back_where_quantize_linear_puts_them(
    dtype: str, low: int, high: int, width: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    kind = np.dtype(dtype)
    weights = {
        "w": rng.integers(low, high + 1, (6, 4)).astype(kind),
        "s": rng.uniform(0.01, 0.1, width).astype(np.float32),
        "z": rng.integers(low // 4, high // 4, width).astype(kind),
    }
    if width == 1:
        weights = {n: a.reshape(()) if n != "w" else a for n, a in weights.items()}
    model = _parsed(MODEL.format(dtype=dtype, width=width).replace("[1]", ""), weights)
    form = trainable_form(model)
    moved = (rng.standard_normal((6, 4)) * 8).astype(np.float32)
    form.model.graph.initializers["w/trained"].const_value = ir.tensor(moved, name="w/trained")
    x = {"x": np.eye(6, dtype=np.float32)}
    expected = run(open_session(form.model), x)["y"]

    np.testing.assert_allclose(
        run(open_session(form.stored(form.model, model)), x)["y"], expected, atol=1e-5
    )


def _parsed(text: str, weights: dict[str, np.ndarray]) -> ir.Model:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    inputs = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in weights.items()
    )
    return ir.from_proto(proto)


def test_a_student_without_weights_is_refused(make_model: ModelMaker, tmp_path: Path) -> None:
    model = make_model("g (float[N,4] x) => (float[N,4] y) {y = Relu(x)}")
    samples = {"x": np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)}

    with pytest.raises(UnsupportedModelError, match="no weights of floating point or in 8 bits"):
        distill(model, model, samples, replace(QUICK, epochs=1), tmp_path)
