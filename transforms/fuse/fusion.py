"""``fuse``: all families of lossless fusions, applied until none finds anything more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir

from trimton.transforms.fuse.arithmetic import ARITHMETIC
from trimton.transforms.fuse.batchnorm import BATCH_NORMALIZATION
from trimton.transforms.fuse.branches import BRANCHES
from trimton.transforms.fuse.chains import RESHAPES, TRANSPOSES
from trimton.transforms.fuse.common import EQUAL_NODES, EQUAL_WEIGHTS
from trimton.transforms.fuse.constants import CONSTANTS
from trimton.transforms.fuse.dead import DEAD_CODE
from trimton.transforms.fuse.family import Family
from trimton.transforms.fuse.gemm import GEMM
from trimton.transforms.fuse.noops import NO_OP_NODES
from trimton.transforms.fuse.pads import PADS
from trimton.transforms.fuse.proof import prove_equal
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.edit import Array, Editor
from trimton.transforms.graph.normalise import normalise
from trimton.transforms.graph.shapes import infer_shapes, restored_declarations
from trimton.transforms.report import Skipped, Step, TransformReport

DEFAULT_TOLERANCE = 1e-4

# In the order of application: what makes constants first, what reads them afterwards.
FAMILIES: tuple[Family, ...] = (
    BRANCHES,
    CONSTANTS,
    NO_OP_NODES,
    TRANSPOSES,
    RESHAPES,
    PADS,
    BATCH_NORMALIZATION,
    ARITHMETIC,
    GEMM,
    DEAD_CODE,
    EQUAL_WEIGHTS,
    EQUAL_NODES,
)


def fuse(
    model: ir.Model,
    *,
    probes: Mapping[str, Array] | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
) -> tuple[ir.Model, TransformReport]:
    """A smaller model with the interface and the outputs of ``model``, and what was done.

    ``model`` itself is left as it is. ``probes`` are real inputs (arrays by input name, first
    axis = samples) on which the outputs are compared, besides random ones. Raises
    TransformError where an output moves by more than ``tolerance``, relative to its largest
    value: then a fusion is wrong for this model, and there is no result.
    """
    fused = normalise(model.clone(), keep_default_inputs=True)
    with restored_declarations(fused):
        counts, skipped = _apply(fused)
    is_changed = bool(counts)
    if not is_changed:
        fused = model.clone()
    difference, unproven = prove_equal(model, fused, given=probes, tolerance=tolerance)
    steps = tuple(
        Step(family.name, family.what, counts[family.name])
        for family in FAMILIES
        if counts[family.name]
    )
    report = TransformReport(
        transform="fuse",
        changed=is_changed,
        before=model_cost(model),
        after=model_cost(fused),
        max_relative_difference=difference,
        steps=steps,
        skipped=(*skipped, *unproven),
    )
    return fused, report


def _apply(model: ir.Model) -> tuple[Counter[str], tuple[Skipped, ...]]:
    """Fuse in place until nothing more is found; the near misses are those of the last round."""
    counts: Counter[str] = Counter()
    while True:
        infer_shapes(model)
        editor = Editor(model)
        skipped: list[Skipped] = []
        found = 0
        for family in FAMILIES:
            outcome = family.apply(editor)
            found += outcome.count
            if outcome.count:
                counts[family.name] += outcome.count
            skipped.extend(outcome.skipped)
        if not found:
            return counts, tuple(dict.fromkeys(skipped))
