"""Small models."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper


def echo_model(types: Mapping[str, int]) -> onnx.ModelProto:
    """``out_T`` = ``in_T`` [batch, 3] for every name T of a type of ONNX."""

    def value(prefix: str, name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(f"{prefix}_{name}", types[name], ["batch", 3])

    nodes = [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in types]
    graph = helper.make_graph(
        nodes, "echo", [value("in", name) for name in types], [value("out", name) for name in types]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
