"""Checks of outputs under load: does every answer hold what it should?

Expected outputs stand beside the requests. Floating-point values may differ within a tolerance, and
a NaN equals a NaN; everything else must be equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import numpy.typing as npt

from trimton.perf.load.tolerance import Tolerance
from trimton.perf.targets.tensors import Array

# How a wrong output is counted in the errors of a window.
WRONG_OUTPUT = "wrong output"

Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class OutputCheck:
    """``expected`` holds some or all outputs of each request, in the order of the requests."""

    expected: Sequence[Outputs]
    tolerance: Tolerance = field(default_factory=Tolerance)

    def mismatch(self, request: int, outputs: Outputs) -> str | None:
        """The first value of the answer to ``request`` (its index) that is wrong, in words."""
        found = first_mismatch(self.expected[request], outputs, self.tolerance)
        return None if found is None else f"request {request + 1}, {found}"


def first_mismatch(expected: Outputs, outputs: Outputs, tolerance: Tolerance) -> str | None:
    """The first difference between ``outputs`` and what is ``expected``; None without any."""
    for name, wanted in expected.items():
        given = outputs.get(name)
        if given is None:
            return f"the answer has no output {name!r}"
        if given.shape != wanted.shape:
            return (
                f"output {name!r} has the shape {list(given.shape)}, expected {list(wanted.shape)}"
            )
        same = _same(given, wanted, tolerance)
        if not same.all():
            place = np.unravel_index(int(np.argmin(same)), same.shape)
            index = [int(n) for n in place]
            got, right = (_shown(array[place]) for array in (given, wanted))
            return f"output {name!r} at {index}: got {got}, expected {right}"
    return None


def _same(given: Array, wanted: Array, tolerance: Tolerance) -> npt.NDArray[np.bool_]:
    if wanted.dtype.kind == "f":
        return np.isclose(
            given, wanted, rtol=tolerance.rtol, atol=tolerance.atol, equal_nan=True
        ).reshape(wanted.shape)
    if wanted.dtype.kind != "O":
        return np.asarray(given == wanted)
    pairs = zip(given.ravel(), wanted.ravel(), strict=True)
    same = (_as_bytes(one) == _as_bytes(other) for one, other in pairs)
    return np.fromiter(same, np.bool_, prod(wanted.shape)).reshape(wanted.shape)


def _as_bytes(element: object) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode()


def _shown(value: object) -> str:
    if isinstance(value, bytes | str):
        return repr(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
    return f"{value:.9g}" if isinstance(value, float | np.floating) else str(value)
