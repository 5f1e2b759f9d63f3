"""Fusing whole architectures: those that the onnx package brings, with random weights."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx_ir as ir
import pytest

from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.save import save_model

REAL_MODELS = Path(__file__).parents[3] / "benchmarks" / "real_models.py"


@pytest.fixture(scope="module")
def real_models() -> Iterator[ModuleType]:
    specification = importlib.util.spec_from_file_location("real_models", REAL_MODELS)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["real_models"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["real_models"]


@pytest.mark.parametrize(
    ("name", "gone", "nodes"),
    [
        ("shufflenet", "BatchNormalization", 153),
        ("squeezenet", "Dropout", 64),
        ("inception_v2", "BatchNormalization", 163),
    ],
)
def test_architecture_is_fused_to_its_core(
    real_models: ModuleType,
    checked_fuse: Callable[[ir.Model], Any],
    tmp_path: Path,
    name: str,
    gone: str,
    nodes: int,
) -> None:
    original = real_models.light_model(name).model
    assert any(node.op_type == gone for node in original.graph)
    fused = checked_fuse(original)
    assert gone not in fused.operators
    assert fused.report.after.nodes == nodes
    assert fused.report.after.parameters <= fused.report.before.parameters
    assert fused.report.after.macs == fused.report.before.macs
    save_model(fused.model, tmp_path / "fused.onnx")
    assert len(load_model(tmp_path / "fused.onnx").graph) == nodes
