"""How far the outputs moved when one model was made of another, on samples or random inputs."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import onnx_ir as ir

from trimton.core.errors import TransformError, UnsupportedModelError
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.inputs import interface
from trimton.transforms.graph.load import one_line
from trimton.transforms.graph.probe import compare_outputs, given_probes, random_probes
from trimton.transforms.graph.session import ORT_ERRORS, NoKernelError
from trimton.transforms.report import Skipped

_WHAT = "output difference"


def measured_difference(
    original: ir.Model,
    made: ir.Model,
    samples: Mapping[str, Array] | None,
    *,
    may_lack_kernels: bool = False,
) -> tuple[float | None, tuple[Skipped, ...]]:
    """The largest relative difference of an output; None, and why, where there is no number.

    With ``may_lack_kernels`` the model made may be for another provider than the CPU's.
    Raises InputError where ``original`` cannot be run on ``samples``; TransformError where
    ``made`` has another interface or cannot be run.
    """
    if interface(original) != interface(made):
        raise TransformError("the model made has other inputs or outputs than the original.")
    try:
        probes = random_probes(original) if samples is None else given_probes(original, samples)
    except UnsupportedModelError as error:
        return None, (Skipped(_WHAT, one_line(str(error))),)
    try:
        worst = compare_outputs(made, probes)[0]
    except ORT_ERRORS as error:
        if may_lack_kernels and isinstance(error, NoKernelError):
            return None, (Skipped(_WHAT, f"no kernel here: {one_line(str(error))}"),)
        raise TransformError(f"the model made cannot be run: {one_line(str(error))}.") from error
    if not isfinite(worst.relative):
        return None, (Skipped(_WHAT, f"output {worst.name!r} is not comparable"),)
    return worst.relative, ()
