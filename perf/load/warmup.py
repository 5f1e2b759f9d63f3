"""How long a server takes to warm up, found in the load itself.

The first seconds are cut into short slices. A change-point splits their mean latencies into a
before and an after where two levels explain them much better than one (least squares on the
logarithm, with the penalty of the Schwarz criterion; Yao, "Estimating the number of
change-points via Schwarz' criterion", 1988). The warm-up is over at the last such point, once
enough slices lie behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
import numpy.typing as npt

from trimton.perf.load.arms import Arm
from trimton.perf.load.rounds import Level, load_at

# A level that holds for fewer slices is a disturbance, not a level.
_SLICES_MIN = 4
# A server that is cold for longer than this before it changes is taken to be warm.
_WATCHED_S_MIN = 2.0
# Parameters that a change-point adds: its place and one more level.
_PARAMETERS = 2


@dataclass(frozen=True)
class Warmup:
    """``seconds`` until the latency was steady; ``found`` is False where it never became so."""

    seconds: float
    found: bool


def steady_from(values: Sequence[float]) -> int:
    """The index from which positive ``values`` stay at one level: their last change-point.

    0 where one level explains them all.
    """
    start = 0
    logs = np.log(np.asarray(values, np.float64))
    while (split := _change_point(logs[start:])) is not None:
        start += split
    return start


def find_warmup(
    arm: Arm, level: Level, *, slice_s: float = 0.1, limit_s: float = 15.0, seed: int = 0
) -> Warmup:
    """Load ``arm`` at ``level`` in slices until the latency is steady, ``limit_s`` at most.

    Steady means: as many slices at one level as there were before it, and twice the fewest that
    make a level; the first two seconds are always watched.
    """
    means: list[float] = []
    elapsed = [0.0]
    while len(means) < limit_s / slice_s:
        load = load_at(level, len(means), window_s=slice_s, warmup_s=0, seed=seed)
        window = arm.measure(load)
        means.append(window.latency_mean_ms)
        elapsed.append(elapsed[-1] + window.duration_s)
        start = steady_from(means)
        if elapsed[-1] >= _WATCHED_S_MIN and len(means) - start >= max(2 * _SLICES_MIN, start):
            return Warmup(elapsed[start], found=True)
    return Warmup(elapsed[-1], found=False)


def _change_point(values: npt.NDArray[np.float64]) -> int | None:
    """The best split of ``values`` into two levels, or None where one is enough."""
    count = len(values)
    splits = np.arange(_SLICES_MIN, count - _SLICES_MIN + 1)
    if not len(splits):
        return None
    sums, squares = np.cumsum(values), np.cumsum(values**2)
    left = squares[splits - 1] - sums[splits - 1] ** 2 / splits
    right_sum = sums[-1] - sums[splits - 1]
    right = squares[-1] - squares[splits - 1] - right_sum**2 / (count - splits)
    residuals = np.maximum(left + right, 1e-12)
    whole = max(float(squares[-1] - sums[-1] ** 2 / count), 1e-12)
    best = int(np.argmin(residuals))
    gain = count * log(whole / float(residuals[best]))
    return int(splits[best]) if gain > 2 * _PARAMETERS * log(count) else None
