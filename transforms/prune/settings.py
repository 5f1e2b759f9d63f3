"""What to prune, how much, and by which criterion."""

from __future__ import annotations

from dataclasses import dataclass

from trimton.core.errors import InputError
from trimton.transforms.graph.kernel_block import kernel_block
from trimton.transforms.prune.allocation import ALLOCATIONS
from trimton.transforms.prune.importance import CRITERIA

COST = "cost"
_NAMES = {"importance": tuple(CRITERIA), "allocation": (*ALLOCATIONS, COST)}


@dataclass(frozen=True)
class PruneSettings:
    """Settings of ``prune``.

    One of three says how many channels go. ``ratio`` is the share of those that can go, above 0
    and below 1. ``target_macs`` is the share of the multiply-accumulates that may stay,
    ``target_speedup`` how many times as fast as the model the result shall be on this machine, with
    ``speed_batch`` samples in a run.
    ``blocks`` is how many whole blocks go, first or instead; it needs samples.
    ``importance`` is a name of importance.CRITERIA. ``allocation`` is one of
    allocation.ALLOCATIONS for a ratio, "cost" for a target. ``exclude`` are patterns (``*``,
    ``?``) of names of nodes whose own channels stay. The channels kept are a ``multiple`` of the
    kernels' block (None: that of this CPU, see kernel_block), and at least ``min_kept``.
    ``fold_constants`` adds what removed channels gave on average to the next bias. ``refit``
    gives the layers behind a cut, where there are samples, the weights that come closest to the
    original. ``statistics`` estimates those of BatchNormalizations anew, where there are samples;
    None: where nothing is refitted, which repairs more.
    ``seed`` is that of importance "random", and of what "taylor" and "hessian" draw.
    Raises InputError for a value that is not one of these.
    """

    ratio: float | None = None
    importance: str = "l2"
    allocation: str = "uniform"
    exclude: tuple[str, ...] = ()
    multiple: int | None = None
    min_kept: int = 1
    fold_constants: bool = True
    seed: int = 0
    target_macs: float | None = None
    target_speedup: float | None = None
    refit: bool = True
    statistics: bool | None = None
    blocks: int = 0
    speed_batch: int = 1

    def __post_init__(self) -> None:
        for name, table in _NAMES.items():
            if (chosen := getattr(self, name)) not in table:
                raise InputError(f"{name} {chosen!r}: is not known; choose {', '.join(table)}.")
        if self.speed_batch < 1:
            raise InputError(f"speed batch {self.speed_batch}: must be a whole number above 0.")
        if self.block < 1 or self.min_kept < 1:
            raise InputError("the multiple and the minimum kept must be whole numbers above 0.")
        self._check_goal()

    @property
    def block(self) -> int:
        """The channels kept are a multiple of this."""
        return kernel_block() if self.multiple is None else self.multiple

    @property
    def estimates_statistics(self) -> bool:
        """Whether statistics of BatchNormalizations are estimated anew."""
        return not self.refit if self.statistics is None else self.statistics

    @property
    def cuts_channels(self) -> bool:
        """Whether anything but whole blocks goes."""
        return self._goals > 0

    @property
    def _goals(self) -> int:
        goals = (self.ratio, self.target_macs, self.target_speedup)
        return sum(goal is not None for goal in goals)

    def _check_goal(self) -> None:
        if self.blocks < 0:
            raise InputError(f"blocks {self.blocks}: must be a whole number, 0 or more.")
        if self.blocks and not self.cuts_channels:
            return
        if self._goals != 1:
            raise InputError(
                "give one of ratio, target macs and target speedup, and only one; blocks can stand "
                "beside it or alone."
            )
        if (self.ratio is None) != (self.allocation == COST):
            raise InputError(
                f"allocation {self.allocation!r}: does not fit; {COST!r} goes by a target of macs "
                f"or speedup, {' and '.join(ALLOCATIONS)} by a ratio."
            )
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise InputError(f"ratio {self.ratio:g}: must lie between 0 and 1, such as 0.5.")
        if self.target_macs is not None and not 0 < self.target_macs < 1:
            raise InputError(
                f"target macs {self.target_macs:g}: must lie between 0 and 1, such as 0.5."
            )
        if self.target_speedup is not None and not self.target_speedup > 1:
            raise InputError(
                f"target speedup {self.target_speedup:g}: must be more than 1, such as 1.8."
            )
