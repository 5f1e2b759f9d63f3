"""How a quantised model is reconstructed: unit by unit, with how many steps, on which samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trimton.core.errors import InputError

BLOCK, LAYER = "block", "layer"
UNITS = (BLOCK, LAYER)

# (setting, whether a value is right, what it must be)
_BOUNDS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("unit", lambda name: name in UNITS, " or ".join(UNITS)),
    ("steps", lambda n: n >= 1, "a whole number above 0"),
    ("batch", lambda n: n >= 1, "a whole number above 0"),
    ("held_out", lambda x: 0 < x < 1, "a share between 0 and 1"),
    ("threads", lambda n: n is None or n >= 1, "a whole number above 0"),
    ("cache_limit_bytes", lambda n: n >= 1, "a whole number above 0"),
)


@dataclass(frozen=True)
class ReconstructSettings:
    """Settings of ``reconstruct``; all of them but ``threads`` decide the outcome.

    ``unit`` is what is tuned together, one of UNITS (see units). Each unit takes ``steps`` steps,
    with ``batch`` samples in each. ``learn_steps`` moves the step sizes (scales) of weights and
    activations, and zero points, too; without it only the rounding of weights and biases change.
    ``held_out`` is the share of the samples that judges and is not tuned on, ``seed`` decides
    which, and the order of the others. ``threads`` compute (None: as many as there are cores).
    What a unit reads and is to give stands in a temporary file of at most ``cache_limit_bytes``;
    where that is not enough for all samples, the unit is tuned on fewer.
    Raises InputError for a value that is none of these.
    """

    unit: str = BLOCK
    steps: int = 400
    batch: int = 32
    learn_steps: bool = True
    held_out: float = 0.2
    seed: int = 0
    threads: int | None = field(default=None)
    cache_limit_bytes: int = 4 * 2**30

    def __post_init__(self) -> None:
        for name, is_right, want in _BOUNDS:
            if not is_right(getattr(self, name)):
                raise InputError(f"{name} {getattr(self, name)}: must be {want}.")
