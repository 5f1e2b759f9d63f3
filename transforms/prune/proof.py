"""The proof of a cut: a model that ignores the removed channels gives the same outputs."""

from __future__ import annotations

from math import isfinite

import onnx_ir as ir

from trimton.core.errors import TransformError, UnsupportedModelError
from trimton.transforms.graph.inputs import interface
from trimton.transforms.graph.load import one_line
from trimton.transforms.graph.probe import compare_outputs, random_probes
from trimton.transforms.graph.session import ORT_ERRORS
from trimton.transforms.graph.tensors import all_tensors
from trimton.transforms.report import Skipped

TOLERANCE = 1e-4
# Values in half precision round at 1e-3 (float16) or 8e-3 (bfloat16); a few roundings are allowed.
_HALF_TOLERANCE = 2.0**-5
_HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def prove_cut(masked: ir.Model, pruned: ir.Model) -> tuple[float | None, tuple[Skipped, ...]]:
    """The largest relative difference on random inputs, or why there is none.

    Raises TransformError where ``pruned`` cannot be run, or an output differs by more than 1e-4
    of its largest value.
    """
    try:
        probes = random_probes(masked)
    except UnsupportedModelError as error:
        return None, (Skipped("proof of the cut", one_line(str(error))),)
    try:
        worst = compare_outputs(pruned, probes)[0]
    except ORT_ERRORS as error:
        raise TransformError(f"the pruned model cannot be run: {one_line(str(error))}.") from error
    is_half = any(tensor.dtype in _HALVES for tensor in all_tensors(pruned))
    allowed = _HALF_TOLERANCE if is_half else TOLERANCE
    if worst.relative > allowed:
        raise TransformError(
            f"the cut is wrong for this model: output {worst.name!r} differs by "
            f"{worst.relative:.3g} of its largest value from the original without the removed "
            f"channels, more than {allowed:.3g}."
        )
    return worst.relative, ()


def output_difference(
    original: ir.Model, pruned: ir.Model
) -> tuple[float | None, tuple[Skipped, ...]]:
    """How far the outputs moved on random inputs; None, and why, where that is no number.

    Raises TransformError where ``pruned`` has another interface or cannot be run.
    """
    if interface(original) != interface(pruned):
        raise TransformError("the pruned model has another interface than the original.")
    try:
        worst = compare_outputs(pruned, random_probes(original))[0]
    except UnsupportedModelError as error:
        return None, (Skipped("output difference", one_line(str(error))),)
    except ORT_ERRORS as error:
        raise TransformError(f"the pruned model cannot be run: {one_line(str(error))}.") from error
    if not isfinite(worst.relative):
        return None, (Skipped("output difference", f"output {worst.name!r} is not comparable"),)
    return worst.relative, ()
