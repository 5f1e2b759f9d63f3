"""How far two models' outputs are apart, on a scale that fits the output."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]

# An output whose largest value is below this is compared as if it were this large.
_SMALLEST_SCALE = 1e-6
# These operators round like 1.0 even where they give almost 0: a Sigmoid far in its tail is
# good to a few 1e-7 and no better, and two correct models differ by as much.
_UNIT_OPERATORS = frozenset({"Erf", "HardSigmoid", "Sigmoid", "Softmax", "Tanh"})
_SMALLEST_UNIT_SCALE = 1e-2
_KEEP_VALUES = frozenset(
    {"Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)


def relative_difference(old: Any, new: Any, floor: float = _SMALLEST_SCALE) -> float:
    """The largest |new - old| divided by the largest |old|, or by ``floor`` if that is larger.

    NaN and infinities must stand in the same places, and everything that is not floating
    point (integers, booleans, texts) must be equal: otherwise the difference is infinite.
    Sequences and maps are compared item by item.
    """
    if isinstance(old, dict):
        if not isinstance(new, dict) or list(old) != list(new):
            return float("inf")
        return relative_difference(list(old.values()), list(new.values()), floor)
    if isinstance(old, list):
        if not isinstance(new, list) or len(old) != len(new):
            return float("inf")
        pairs = zip(old, new, strict=True)
        return max(
            (relative_difference(a, b, floor) for a, b in pairs),
            default=0.0,
        )
    return _array_difference(np.asarray(old), np.asarray(new), floor)


def _array_difference(old: Array, new: Array, floor: float) -> float:
    if old.shape != new.shape or old.dtype != new.dtype:
        return float("inf")
    if old.dtype.kind in "iubOSU":
        return 0.0 if np.array_equal(old, new) else float("inf")
    finite = np.isfinite(old)
    if not np.array_equal(old[~finite], new[~finite], equal_nan=True):
        return float("inf")
    if not np.isfinite(new[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    a, b = old[finite].astype(np.float64), new[finite].astype(np.float64)
    return float(np.abs(b - a).max() / max(np.abs(a).max(), floor))


def smallest_scale(output: ir.Value) -> float:
    """The floor of relative_difference that suits ``output``, from the operator that makes it."""
    node = output.producer()
    while node is not None and node.op_type in _KEEP_VALUES and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    is_unit = node is not None and node.op_type in _UNIT_OPERATORS and not node.domain
    return _SMALLEST_UNIT_SCALE if is_unit else _SMALLEST_SCALE
