"""How far to factorise: one of four goals, and what layers and ranks are considered."""

from __future__ import annotations

from dataclasses import dataclass

from trimton.core.errors import InputError

_SHARES = ("ratio", "energy", "target_macs")


@dataclass(frozen=True)
class FactoriseSettings:
    """Settings of ``factorise``.

    One of four says how far it goes. ``ratio`` is the share of each layer's multiply-accumulates
    that goes; ``energy`` the share of the variance of each layer's responses that stays;
    ``target_macs`` the share of the model's multiply-accumulates that may stay, and
    ``target_speedup`` how many times as fast as the model the result shall be on this machine:
    for these two, ranks are chosen over all layers so that the outputs move least. The first
    three lie between 0 and 1, the last above 1.

    Ranks are multiples of ``multiple``, the block of the kernels (NCHWc blocks are 8 with AVX2,
    16 with AVX-512). With ``measure``, a layer is only factorised where that saves time on this
    machine; without, where it saves multiply-accumulates, and the result is the same everywhere.
    ``exclude`` are patterns (``*``, ``?``) of names of nodes that are left alone.
    Raises InputError for a value that is not one of these.
    """

    ratio: float | None = None
    energy: float | None = None
    target_macs: float | None = None
    target_speedup: float | None = None
    multiple: int = 8
    measure: bool = True
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        goals = [getattr(self, name) for name in (*_SHARES, "target_speedup")]
        if sum(goal is not None for goal in goals) != 1:
            raise InputError(
                "give one of ratio, energy, target macs and target speedup, and only one."
            )
        for name in _SHARES:
            share = getattr(self, name)
            if share is not None and not 0 < share < 1:
                raise InputError(
                    f"{name.replace('_', ' ')} {share:g}: must lie between 0 and 1, such as 0.5."
                )
        if self.target_speedup is not None and not self.target_speedup > 1:
            raise InputError(
                f"target speedup {self.target_speedup:g}: must be more than 1, such as 1.5."
            )
        if self.target_speedup is not None and not self.measure:
            raise InputError("target speedup: needs measurements; give target macs without them.")
        if self.multiple < 1:
            raise InputError("the multiple must be a whole number above 0.")
