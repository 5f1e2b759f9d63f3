"""Models for the tests of transforms, written as ONNX text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest

ModelMaker = Callable[..., ir.Model]


@pytest.fixture
def make_model() -> ModelMaker:
    """Builds a model from the text of a graph; keyword arrays become weights of that name.

    The text lists weights as inputs, which gives them a type: ``g (float[N,3] x, float[3,4] w)``.
    """

    def make(
        graph: str, *, opset: int = 17, domains: str = "", **weights: npt.NDArray[np.generic]
    ) -> ir.Model:
        header = f'<ir_version: 8, opset_import: ["" : {opset}{domains}]>'
        proto = onnx.parser.parse_model(f"{header} {graph}")
        inputs = [value for value in proto.graph.input if value.name not in weights]
        assert len(inputs) + len(weights) == len(proto.graph.input), "a weight is not declared"
        del proto.graph.input[:]
        proto.graph.input.extend(inputs)
        proto.graph.initializer.extend(
            onnx.numpy_helper.from_array(array, name) for name, array in weights.items()
        )
        for number, node in enumerate(proto.graph.node):
            node.name = node.name or f"n{number}"
        onnx.checker.check_model(proto)
        return ir.from_proto(proto)

    return make
