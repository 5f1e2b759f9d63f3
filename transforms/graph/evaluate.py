"""Evaluating one node on constants, by ONNX Runtime itself, so that its value is the runtime's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trimton.transforms.graph.edit import constant
from trimton.transforms.graph.session import open_session, run

Array = npt.NDArray[Any]

_EVALUABLE = frozenset(
    {
        ir.DataType.BOOL,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
        ir.DataType.INT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
        ir.DataType.INT8,
        ir.DataType.STRING,
        ir.DataType.UINT16,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
        ir.DataType.UINT8,
    }
)


def can_evaluate(node: ir.Node) -> bool:
    """Whether numpy has the types of all constants that ``node`` reads and of what it makes."""
    tensors = [constant(value) for value in node.inputs]
    types = {t.dtype for t in tensors if t is not None} | {v.dtype for v in node.outputs}
    return types - {None} <= _EVALUABLE


def evaluate(node: ir.Node, model: ir.Model) -> list[Array]:
    """The named outputs of ``node`` for its constant inputs; raises one of ORT_ERRORS."""
    feeds: dict[str, Array] = {}
    inputs: list[ir.Value | None] = []
    for index, value in enumerate(node.inputs):
        tensor = constant(value)
        if tensor is None:
            inputs.append(None)
            continue
        name = f"input_{index}"
        array = tensor.numpy()
        feeds[name] = _texts(array) if tensor.dtype == ir.DataType.STRING else array
        inputs.append(
            ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
        )
    outputs = [
        ir.Value(name=f"output_{index}" if output.name else "", type=output.type)
        for index, output in enumerate(node.outputs)
    ]
    alone = ir.Node(
        node.domain, node.op_type, inputs, tuple(node.attributes.values()), outputs=outputs
    )
    graph = ir.Graph(
        [value for value in inputs if value is not None],
        [output for output in outputs if output.name],
        nodes=[alone],
        opset_imports=dict(model.opset_imports),
        name="alone",
    )
    session = open_session(ir.Model(graph, ir_version=model.ir_version))
    return [np.asarray(array) for array in run(session, feeds).values()]


def _texts(array: Array) -> Array:
    texts = [item.decode() if isinstance(item, bytes) else item for item in array.reshape(-1)]
    return np.array(texts, dtype=object).reshape(array.shape)
