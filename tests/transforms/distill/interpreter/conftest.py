"""What the tests of the interpreter share: one thread, and small models from ONNX's text format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.session import open_session, run

Parse = Callable[..., ir.Model]
FASHION_RESNET = Path(__file__).parents[4] / "model_repository/fashion_resnet/1/model.onnx"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tests of small tensors are quicker without other threads, and add up in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def parse() -> Parse:
    """A model from its text; ``weights`` become initializers."""

    def make(text: str, opset: int = 17, **weights: np.ndarray) -> ir.Model:
        proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}')
        for name, array in weights.items():
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return ir.from_proto(proto)

    return make


@pytest.fixture(scope="session")
def fashion_resnet() -> ir.Model:
    """The model that the repository brings: 15 convolutions, each with its normalisation."""
    return load_model(FASHION_RESNET)


@pytest.fixture
def in_runtime() -> Callable[[ir.Model, Mapping[str, Any]], dict[str, Any]]:
    """What ONNX Runtime makes of a model."""
    return lambda model, feeds: run(open_session(model), feeds)
