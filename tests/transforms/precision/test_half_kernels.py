"""The probe for kernels, against what ONNX Runtime does with a whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from trimton.transforms.graph.session import ORT_ERRORS
from trimton.transforms.precision.formats import FORMATS
from trimton.transforms.precision.kernels import has_kernel
from trimton.transforms.precision.slots import Slots, half_slots

GRAPHS = {
    "Add": "y = Add(x, x)",
    "Concat": "y = Concat<axis=0>(x, x)",
    "Conv": "y = Conv(x, x)",
    "LayerNormalization": "y = LayerNormalization(x, v)",
    "MatMul": "y = MatMul(x, x)",
    "Relu": "y = Relu(x)",
    "Softmax": "y = Softmax(x)",
    "Transpose": "y = Transpose<perm=[0,1,3,2]>(x)",
}


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("op_type", GRAPHS)
def test_the_probe_says_what_the_runtime_does(
    make_model: Any, tmp_path: Path, op_type: str, to: str
) -> None:
    model = make_model(
        f"g (float[4,4,4,4] x, float[4] v) => (float[A,B,C,D] y) {{ {GRAPHS[op_type]} }}"
    )
    (node,) = model.graph
    form = FORMATS[to]
    for value in node.inputs:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    slots = half_slots(node, 17, form)
    if isinstance(slots, str):
        assert "ONNX has no bfloat16 form of it in operator set 17" in slots
        return
    assert isinstance(slots, Slots)

    found = has_kernel(node, slots, 17, form.dtype)

    for value in (*model.graph.inputs, *model.graph.outputs):
        value.type = ir.TensorType(form.dtype)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    ir.save(model, tmp_path / "half.onnx")
    try:
        onnxruntime.InferenceSession(tmp_path / "half.onnx", options)
    except ORT_ERRORS:
        assert not found
        return
    ran = [one.op_type for one in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert found == (ran == [op_type])
