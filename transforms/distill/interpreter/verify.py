"""Every node against ONNX Runtime, once, on one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.distill.interpreter.dtypes import Array, to_array, to_tensor
from trimton.transforms.distill.interpreter.node import described
from trimton.transforms.distill.interpreter.program import Program
from trimton.transforms.graph.difference import relative_difference, smallest_scale
from trimton.transforms.graph.taps import Taps

# Two correct kernels may add up in another order; half precision rounds at 2^-11 and 2^-8.
_TOLERANCES: Mapping[torch.dtype, float] = {torch.float16: 1e-2, torch.bfloat16: 5e-2}
_TOLERANCE = 1e-4


def verify(
    model: ir.Model, program: Program, given: Sequence[Tensor], sample: Mapping[str, Array]
) -> float:
    """Compute each node of ``program`` on ONNX Runtime's own values, and compare what it makes.

    Returns the largest relative difference. Raises UnsupportedModelError, naming the first node
    that differs by more than rounding, or where ONNX Runtime cannot run the model on ``sample``.
    """
    names = [value.name for node in program.nodes for value in node.outputs if value.name]
    # Optimised, quantised layers would be computed in integers, with another rounding.
    expected = Taps(model, names, optimise=False)(sample)
    worst = 0.0

    def compare(node: ir.Node, made: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        nonlocal worst
        if any(value.name not in expected for value in node.outputs if value.name):
            return made  # in a branch: what comes out of it is compared
        truths: list[Tensor | None] = []
        for value, tensor in zip(node.outputs, made, strict=True):
            if not value.name or tensor is None:
                truths.append(tensor)
                continue
            truth = expected[value.name]
            worst = max(worst, _require_equal(node, value, tensor, truth))
            truths.append(to_tensor(truth).to(tensor.dtype))
        return truths

    with torch.no_grad():
        program.run(given, observe=compare)
    return worst


def _require_equal(node: ir.Node, value: ir.Value, made: Tensor, truth: Array) -> float:
    array = to_array(made)
    if array.shape != truth.shape:
        raise UnsupportedModelError(
            f"{described(node)} makes {value.name!r} of shape "
            f"{list(array.shape)} here and {list(truth.shape)} in ONNX Runtime."
        )
    # Quantised values are floating point here, so that gradients pass: see quantisation.
    comparable = truth.astype(np.float64), array.astype(np.float64)
    difference = relative_difference(*comparable, smallest_scale(value))
    if difference > _TOLERANCES.get(made.dtype, _TOLERANCE):
        raise UnsupportedModelError(
            f"{described(node)} differs from ONNX Runtime by {difference:.2g} "
            f"of its largest value {value.name!r}, so gradients would be those of another model."
        )
    return difference
