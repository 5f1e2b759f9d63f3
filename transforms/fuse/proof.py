"""The proof that a lossless transform was one: equal outputs on random and on given inputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from trimton.core.errors import TransformError, UnsupportedModelError
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.inputs import interface
from trimton.transforms.graph.load import one_line
from trimton.transforms.graph.probe import Probe, compare_outputs, given_probes, random_probes
from trimton.transforms.graph.session import ORT_ERRORS
from trimton.transforms.graph.tensors import all_nodes, all_tensors
from trimton.transforms.report import Skipped

# Half-precision arithmetic rounds at 1e-3 (float16) and 8e-3 (bfloat16): no reordering of it
# can agree to 1e-4. A few such roundings are allowed there.
_ROUNDINGS = 8
_HALF_EPSILON: Mapping[ir.DataType, float] = {
    ir.DataType.FLOAT16: float(np.finfo(np.float16).eps),
    ir.DataType.BFLOAT16: 2.0**-7,
}


def prove_equal(
    before: ir.Model,
    after: ir.Model,
    *,
    given: Mapping[str, Array] | None,
    tolerance: float,
) -> tuple[float | None, tuple[Skipped, ...]]:
    """The largest relative difference of the outputs, and what could not be proven, and why.

    Raises TransformError where the interface differs, ``after`` cannot be run, or an output
    moves by more than ``tolerance`` (or by a few roundings, where values are in half precision).
    """
    if interface(before) != interface(after):
        raise TransformError("the fused model has another interface than the original.")
    try:
        probes, skipped = _probes(before, given)
    except UnsupportedModelError as error:
        return None, (Skipped("proof of equality", one_line(str(error))),)
    try:
        differences = compare_outputs(after, probes)
    except ORT_ERRORS as error:
        raise TransformError(f"the fused model cannot be run: {one_line(str(error))}.") from error
    allowed = max(tolerance, _rounding(after))
    worst = differences[0]
    if worst.relative > allowed:
        raise TransformError(
            f"the fused model differs from the original: output {worst.name!r} by "
            f"{worst.relative:.3g} of its largest value, more than {allowed:.3g}."
        )
    return worst.relative, skipped


def _probes(
    model: ir.Model, given: Mapping[str, Array] | None
) -> tuple[tuple[Probe, ...], tuple[Skipped, ...]]:
    if given is None:
        return random_probes(model), ()
    probes = given_probes(model, given)
    try:
        return (*random_probes(model), *probes), ()
    except UnsupportedModelError as error:
        return probes, (Skipped("random probes", one_line(str(error))),)


def _rounding(model: ir.Model) -> float:
    """What values in half precision, if there are any, may differ by."""
    values = [*model.graph.inputs, *(v for node in all_nodes(model) for v in node.outputs)]
    types = {v.dtype for v in values} | {tensor.dtype for tensor in all_tensors(model)}
    return max(
        (_ROUNDINGS * eps for half, eps in _HALF_EPSILON.items() if half in types), default=0
    )
