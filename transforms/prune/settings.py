"""What to prune, how much, and by which criterion."""

from __future__ import annotations

from dataclasses import dataclass

from trimton.core.errors import InputError
from trimton.transforms.prune.allocation import ALLOCATIONS
from trimton.transforms.prune.importance import CRITERIA

DEFAULT_MULTIPLE = 8


@dataclass(frozen=True)
class PruneSettings:
    """Settings of ``prune``.

    ``ratio`` is the share of the removable channels that goes, above 0 and below 1.
    ``importance`` is a name of importance.CRITERIA, ``allocation`` one of
    allocation.ALLOCATIONS. ``exclude`` are patterns (``*``, ``?``) of names of nodes whose own
    channels stay. The channels kept are a ``multiple`` of the kernels' block (NCHWc blocks are 8
    with AVX2, 16 with AVX-512), and at least ``min_kept``. ``fold_constants`` adds what removed
    channels gave on average to the next bias. ``seed`` is that of importance "random".
    Raises InputError for a value that is not one of these.
    """

    ratio: float
    importance: str = "l2"
    allocation: str = "uniform"
    exclude: tuple[str, ...] = ()
    multiple: int = DEFAULT_MULTIPLE
    min_kept: int = 1
    fold_constants: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise InputError(f"ratio {self.ratio:g}: must lie between 0 and 1, such as 0.5.")
        for name, table in (("importance", CRITERIA), ("allocation", ALLOCATIONS)):
            if (chosen := getattr(self, name)) not in table:
                raise InputError(f"{name} {chosen!r}: is not known; choose {', '.join(table)}.")
        if self.multiple < 1 or self.min_kept < 1:
            raise InputError("the multiple and the minimum kept must be whole numbers above 0.")
