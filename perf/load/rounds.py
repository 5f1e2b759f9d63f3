"""Interleaved rounds: every arm at every load, again and again, in a balanced order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from trimton.core.errors import InputError
from trimton.perf.load.arms import Arm, Load
from trimton.perf.results import LoadWindow
from trimton.perf.stats.order import balanced_order


def measure_rounds(
    arms: Sequence[Arm],
    *,
    levels: Sequence[int],
    rounds: int,
    window_s: float,
    warmup_s: float,
    seed: int,
    done: Collection[LoadWindow] = (),
    on_window: Callable[[LoadWindow], None] = lambda window: None,
) -> tuple[LoadWindow, ...]:
    """Load every arm at every concurrency of ``levels`` for ``rounds`` windows each.

    Within a round the arms follow each other directly at one concurrency, so that their ratio
    is taken under the same conditions. ``done`` holds windows that an interrupted run measured
    with the same settings: they are returned again, not repeated. ``on_window`` receives each
    new window as soon as it is measured. Returns all windows in the order of the plan.

    Raises InputError for an empty plan and whatever the arms raise.
    """
    _check(arms, levels, rounds, window_s, warmup_s)
    kept = {(w.variant, w.concurrency, w.batch, w.round): w for w in done}
    orders = balanced_order(len(arms), rounds, seed)
    windows = []
    for round_index, order in enumerate(orders):
        for concurrency in levels:
            for arm in (arms[index] for index in order):
                key = (arm.variant, concurrency, arm.batch, round_index)
                if key not in kept:
                    kept[key] = arm.measure(Load(concurrency, round_index, window_s, warmup_s))
                    on_window(kept[key])
                windows.append(kept[key])
    return tuple(windows)


def _check(
    arms: Sequence[Arm], levels: Sequence[int], rounds: int, window_s: float, warmup_s: float
) -> None:
    names = [arm.variant for arm in arms]
    if not names or len(set(names)) < len(names):
        raise InputError(f"variants need different names, but are {', '.join(names) or 'none'}.")
    if not levels or min(levels) < 1:
        raise InputError("concurrency must be at least 1.")
    if rounds < 1:
        raise InputError(f"the number of rounds must be at least 1, not {rounds}.")
    if not window_s > 0:
        raise InputError(f"the window must be longer than 0 s, not {window_s:g} s.")
    if not warmup_s >= 0:
        raise InputError(f"the warm-up cannot be shorter than 0 s, but is {warmup_s:g} s.")
