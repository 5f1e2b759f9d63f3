"""Whether ONNX Runtime's CPU provider computes an operator in half precision by itself.

It is asked: a model of one node is loaded. Where there is no kernel, the runtime puts Casts around
a float16 node, splits it into others, or refuses a bfloat16 one.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime as ort

from trimton.transforms.graph.session import ORT_ERRORS
from trimton.transforms.precision.slots import Slots


def has_kernel(node: ir.Node, slots: Slots, opset: int, half: ir.DataType) -> bool:
    """Whether a kernel reads and makes ``half`` at the ``slots`` of ``node``."""
    types = tuple(
        None if value is None else half if index in slots.inputs else value.dtype
        for index, value in enumerate(node.inputs)
    )
    attributes = tuple(
        ir.serde.serialize_attribute(a).SerializeToString() for a in node.attributes.values()
    )
    return _has_kernel(node.op_type, opset, types, attributes, len(node.outputs))


@cache
def _has_kernel(
    op_type: str,
    opset: int,
    types: tuple[ir.DataType | None, ...],
    attributes: tuple[bytes, ...],
    outputs: int,
) -> bool:
    inputs = [
        onnx.helper.make_tensor_value_info(f"input_{index}", dtype.value, None)
        for index, dtype in enumerate(types)
        if dtype is not None
    ]
    names = ["" if dtype is None else f"input_{index}" for index, dtype in enumerate(types)]
    made = [onnx.helper.make_empty_tensor_value_info(f"output_{i}") for i in range(outputs)]
    node = onnx.helper.make_node(op_type, names, [value.name for value in made])
    node.attribute.extend(onnx.AttributeProto.FromString(text) for text in attributes)
    graph = onnx.helper.make_graph([node], "alone", inputs, made)
    opsets = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
        path = Path(folder) / "optimised.onnx"
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.optimized_model_filepath = str(path)
        try:
            ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except ORT_ERRORS:
            return False
        return [one.op_type for one in onnx.load(path).graph.node] == [op_type]
