"""How a canary goes: shares of the traffic, and how long each is held."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from trimton.core.errors import InputError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
HOLD_S_MAX = 86400.0


@dataclass(frozen=True)
class CanaryPlan:
    """The steps of a canary.

    ``shares_pct``: ascending shares of the traffic, the last is 100. Each is held for ``hold_s``
    seconds at least. ``rate_rps`` is what 100 % stand for (None: a fifth of what the version in
    service answers one at a time). The latency may be ``max_regression_pct`` higher. Where
    the last is not clear after ``hold_s``, the canary pauses there and looks on, ``patience`` times
    as long in all.
    """

    shares_pct: tuple[float, ...]
    hold_s: float = 60.0
    rate_rps: float | None = None
    max_regression_pct: float = 5.0
    patience: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        shares = self.shares_pct
        if not shares or shares[-1] != 100 or not _rise(shares):
            listed = ",".join(f"{share:g}" for share in shares)
            raise InputError(
                f"--canary {listed}: shares are percentages that rise to 100, such as 5,25,100."
            )
        if not 0 < self.hold_s <= HOLD_S_MAX:
            raise InputError(f"--hold must be more than 0 s and at most 24h, not {self.hold_s:g}s.")
        if self.rate_rps is not None and not 0 < self.rate_rps <= 1e6:
            raise InputError(f"--rate must be more than 0 and at most 1e6, not {self.rate_rps:g}.")
        if not 0 < self.max_regression_pct <= 1000:
            raise InputError(
                "--max-regression-pct must be more than 0 and at most 1000, not "
                f"{self.max_regression_pct:g}."
            )


def _rise(shares: tuple[float, ...]) -> bool:
    return all(before < after for before, after in pairwise((0.0, *shares)))


def parse_shares(text: str) -> tuple[float, ...]:
    """``5,25,100``; InputError for anything but numbers (CanaryPlan checks their order)."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--canary {text}: give percentages such as 5,25,100.") from error


def parse_hold(text: str) -> float:
    """Seconds of ``60s``, ``5m`` or ``1h``; InputError for anything else."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise InputError(f"--hold {text}: give a time such as 60s, 5m or 1h.")
    return float(found[1]) * _SECONDS[found[2]]
