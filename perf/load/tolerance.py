"""How far floating-point outputs may be from what is expected."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """A value may differ by ``atol + rtol * |expected|``, as in ``numpy.isclose``."""

    rtol: float = 1e-3
    atol: float = 1e-5
