"""Fusing the models of ONNX's own test suite: every operator, in all its versions and types."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.fuse import fuse
from trimton.transforms.graph.difference import relative_difference
from trimton.transforms.graph.load import MIN_OPSET, load_model
from trimton.transforms.graph.session import ORT_ERRORS, open_session, run

# Control flow and the values that are no tensors are all tried, of the others every sixth.
ALWAYS = ("_if", "_loop", "_scan", "_sequence", "_optional", "_string", "batchnorm", "dropout")
STEP = 6


def cases() -> list[Any]:
    """The test cases: each has a name, a model and inputs."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some expected outputs overflow on purpose
        found = collect_testcases(None)
    return [
        case
        for index, case in enumerate(found)
        if index % STEP == 0 or any(part in case.name for part in ALWAYS)
    ]


def feeds_of(case: Any) -> dict[str, np.ndarray] | None:
    """Inputs by name; None where one is no array."""
    inputs, _ = case.data_sets[0]
    names = [value.name for value in case.model.graph.input]
    arrays = all(isinstance(array, np.ndarray | np.generic) for array in inputs)
    return dict(zip(names, map(np.asarray, inputs), strict=True)) if arrays else None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def test_every_standard_model_gives_the_same_or_is_refused_for_its_age(path: Path) -> None:
    compared, too_old, not_run_here = 0, 0, 0
    for case in cases():
        onnx.save(case.model, path)
        try:
            model = load_model(path)
        except UnsupportedModelError:
            assert min(entry.version for entry in case.model.opset_import) < MIN_OPSET, case.name
            too_old += 1
            continue
        fused, report = fuse(model)
        assert report.after.nodes <= report.before.nodes, case.name
        feeds = feeds_of(case)
        try:
            expected = run(open_session(model), feeds or {})
        except (*ORT_ERRORS, RuntimeError, ValueError):  # the runtime lacks the operator or type
            not_run_here += 1
            continue
        if any("random" in skipped.why for skipped in report.skipped):
            continue
        outputs = run(open_session(fused), feeds or {})
        limit = 1e-2 if any(a.dtype == np.float16 for a in (feeds or {}).values()) else 1e-4
        for name, old in expected.items():
            assert relative_difference(old, outputs[name]) <= limit, case.name
        compared += 1
    assert compared > 200
    assert compared > 2 * (too_old + not_run_here)
