"""Pruning in tests: the proof inside ``prune`` is not trusted, outputs are compared again here."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.graph.digest import model_digest
from trimton.transforms.graph.inputs import interface
from trimton.transforms.graph.probe import random_probes
from trimton.transforms.graph.save import save_model
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.prune import PruneSettings, masked_and_cut

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@dataclass(frozen=True)
class Cut:
    """A model whose cut was checked."""

    model: ir.Model

    def shape(self, weight: str) -> tuple[int, ...]:
        return tuple(self.array(weight).shape)

    def array(self, weight: str) -> np.ndarray:
        tensor = self.model.graph.initializers[weight].const_value
        assert tensor is not None
        return tensor.numpy()

    def node(self, op_type: str) -> ir.Node:
        return next(node for node in self.model.graph if node.op_type == op_type)


CheckedCut = Callable[..., Cut]


@pytest.fixture
def checked_cut(tmp_path: Path) -> CheckedCut:
    """Cuts half of every group (by default): masked equals cut, and the result is valid ONNX."""

    def check(
        model: ir.Model,
        ratio: float = 0.5,
        *,
        seed: int = 1,
        multiple: int = 1,
        is_exact: bool = True,
        **settings: object,
    ) -> Cut:
        before = model_digest(model)
        chosen = PruneSettings(
            ratio=ratio, importance="random", multiple=multiple, seed=seed, **settings
        )
        masked, cut = masked_and_cut(model, chosen)
        assert model_digest(model) == before
        assert interface(cut) == interface(model)
        save_model(cut, tmp_path / "cut.onnx")
        for probe in random_probes(masked, seed=7):
            outputs = run(open_session(cut), probe.inputs)
            for name, expected in probe.outputs.items():
                assert outputs[name].shape == expected.shape
                scale = max(float(np.abs(expected).max()), 1e-6)
                if is_exact:
                    np.testing.assert_allclose(outputs[name], expected, rtol=0, atol=1e-4 * scale)
        return Cut(cut)

    return check


def _load(name: str) -> Iterator[ModuleType]:
    specification = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.fixture(scope="session")
def topologies() -> Iterator[ModuleType]:
    """The networks of the benchmark."""
    yield from _load("prune_topologies")


@pytest.fixture(scope="session")
def real_models() -> Iterator[ModuleType]:
    """The architectures that the onnx package brings."""
    yield from _load("real_models")
