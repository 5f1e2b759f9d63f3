"""Fusing in tests: the proof inside ``fuse`` is not trusted, outputs are compared again here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.fuse import fuse
from trimton.transforms.graph.digest import model_digest
from trimton.transforms.graph.inputs import interface
from trimton.transforms.graph.probe import random_probes
from trimton.transforms.graph.session import open_session, run
from trimton.transforms.report import TransformReport


@dataclass(frozen=True)
class Fused:
    """A fused model and its report, with what tests ask for."""

    model: ir.Model
    report: TransformReport

    @property
    def operators(self) -> Counter[str]:
        return Counter(node.op_type for node in self.model.graph.all_nodes())

    @property
    def steps(self) -> dict[str, int]:
        return {step.name: step.count for step in self.report.steps}

    @property
    def reasons(self) -> str:
        return "; ".join(f"{skipped.what}: {skipped.why}" for skipped in self.report.skipped)


def check_fuse(model: ir.Model) -> Fused:
    """Fuse ``model``; the argument is untouched, outputs are equal, and nothing is left to do."""
    before = model_digest(model)
    fused, report = fuse(model)
    assert model_digest(model) == before
    assert interface(fused) == interface(model)
    assert report.after.nodes <= report.before.nodes
    for probe in random_probes(model, seed=7):
        outputs = run(open_session(fused), probe.inputs)
        for name, expected in probe.outputs.items():
            scale = max(float(np.abs(expected).max()), 1e-6) if expected.dtype.kind == "f" else 0
            np.testing.assert_allclose(outputs[name], expected, rtol=0, atol=1e-4 * scale)
    again, second = fuse(fused)
    assert not second.changed, second.steps
    assert model_digest(again) == model_digest(fused) == model_digest(fuse(model)[0])
    return Fused(fused, report)


@pytest.fixture
def checked_fuse() -> Callable[[ir.Model], Fused]:
    return check_fuse
