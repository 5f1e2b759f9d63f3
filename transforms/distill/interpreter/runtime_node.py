"""Nodes without a function in torch: ONNX Runtime computes them, away from all gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import Tensor

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.distill.interpreter.dtypes import ONNX_TYPES, to_array, to_tensor
from trimton.transforms.distill.interpreter.node import Kernel, described
from trimton.transforms.graph.load import one_line
from trimton.transforms.graph.session import ORT_ERRORS, open_session

_IR_VERSION = 8


def runtime_kernel(node: ir.Node, opsets: Mapping[str, int]) -> Kernel:
    """A function that has ONNX Runtime compute ``node`` alone.

    It raises UnsupportedModelError where ONNX Runtime does not know the operator, or where a
    gradient would have to pass: what the node makes is floating point and depends on weights.
    """
    sessions: dict[tuple[torch.dtype | None, ...], ort.InferenceSession] = {}

    def compute(*inputs: Tensor | None) -> tuple[Tensor | None, ...]:
        types = tuple(None if tensor is None else tensor.dtype for tensor in inputs)
        if types not in sessions:
            sessions[types] = _session(node, opsets, types)
        feeds = {
            f"input_{index}": to_array(tensor)
            for index, tensor in enumerate(inputs)
            if tensor is not None
        }
        made = _by_output(node, sessions[types].run(None, feeds))
        follows = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
        if follows and any(t is not None and t.dtype.is_floating_point for t in made):
            raise no_gradient(node)
        return made

    return compute


def no_gradient(node: ir.Node) -> UnsupportedModelError:
    """The error for an operator that stands between weights and outputs."""
    return UnsupportedModelError(
        f"{described(node)} stands between weights and outputs, and no "
        f"gradient of it is known; train a model that ends before it, or export it without."
    )


def _by_output(node: ir.Node, made: Sequence[Any]) -> tuple[Tensor | None, ...]:
    if not all(isinstance(item, np.ndarray) for item in made):
        raise UnsupportedModelError(
            f"{described(node)} makes sequences or maps, which torch lacks."
        )
    arrays = iter(made)
    return tuple(to_tensor(next(arrays)) if value.name else None for value in node.outputs)


def _session(
    node: ir.Node, opsets: Mapping[str, int], types: Sequence[torch.dtype | None]
) -> ort.InferenceSession:
    inputs = [
        None
        if dtype is None
        else ir.Value(name=f"input_{index}", type=ir.TensorType(ONNX_TYPES[dtype]))
        for index, dtype in enumerate(types)
    ]
    outputs = [
        ir.Value(name=f"output_{index}" if value.name else "", type=value.type)
        for index, value in enumerate(node.outputs)
    ]
    attributes = tuple(node.attributes.values())
    alone = ir.Node(node.domain, node.op_type, inputs, attributes, outputs=outputs)
    graph = ir.Graph(
        [value for value in inputs if value is not None],
        [value for value in outputs if value.name],
        nodes=[alone],
        opset_imports=dict(opsets),
        name="alone",
    )
    try:
        return open_session(ir.Model(graph, ir_version=_IR_VERSION), threads=1)
    except ORT_ERRORS as error:
        raise UnsupportedModelError(
            f"{described(node)} has no function here, and ONNX Runtime cannot "
            f"compute it alone: {one_line(str(error))}."
        ) from error
