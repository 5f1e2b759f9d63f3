"""Interleaved rounds: every arm at every load, again and again, in a balanced order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from trimton.core.errors import InputError
from trimton.perf.load.arms import Arm, Load
from trimton.perf.load.schedules import Arrivals
from trimton.perf.results import LoadWindow
from trimton.perf.stats.order import balanced_order

# The load of one level: so many requests in flight, or arrivals by schedule.
Level = int | Arrivals


def load_at(
    level: Level,
    round_index: int,
    *,
    window_s: float,
    warmup_s: float,
    request_count: int | None = None,
    seed: int = 0,
) -> Load:
    """What one window at ``level`` asks for."""
    concurrency, arrivals = (level, None) if isinstance(level, int) else (0, level)
    return Load(concurrency, round_index, window_s, warmup_s, arrivals, request_count, seed)


def measure_rounds(
    arms: Sequence[Arm],
    *,
    levels: Sequence[Level],
    rounds: int,
    window_s: float,
    warmup_s: float,
    seed: int,
    request_count: int | None = None,
    done: Collection[LoadWindow] = (),
    on_window: Callable[[LoadWindow], None] = lambda window: None,
) -> tuple[LoadWindow, ...]:
    """Load every arm at each of ``levels`` for ``rounds`` windows.

    A window lasts ``window_s``, or ``request_count`` requests where that is given. Within a
    round the arms follow each other directly at one level, so that their ratio is taken under
    the same conditions. ``done`` holds windows that an interrupted run measured with the same
    settings: they are returned again, not repeated. ``on_window`` receives each new window as
    soon as it is measured. Returns all windows in the order of the plan.

    Raises InputError for an empty plan and whatever the arms raise.
    """
    _check(arms, levels, rounds, window_s, warmup_s, request_count)
    kept = {(w.variant, w.concurrency, w.arrivals, w.rate_rps, w.batch, w.round): w for w in done}
    orders = balanced_order(len(arms), rounds, seed)
    windows = []
    for round_index, order in enumerate(orders):
        for level in levels:
            load = load_at(
                level,
                round_index,
                window_s=window_s,
                warmup_s=warmup_s,
                request_count=request_count,
                seed=seed,
            )
            kind = (
                (None, None)
                if load.arrivals is None
                else (load.arrivals.name, load.arrivals.rate_rps)
            )
            for arm in (arms[index] for index in order):
                key = (arm.variant, load.concurrency, *kind, arm.batch, round_index)
                if key not in kept:
                    kept[key] = arm.measure(load)
                    on_window(kept[key])
                windows.append(kept[key])
    return tuple(windows)


def _check(
    arms: Sequence[Arm],
    levels: Sequence[Level],
    rounds: int,
    window_s: float,
    warmup_s: float,
    request_count: int | None,
) -> None:
    names = [arm.variant for arm in arms]
    if not names or len(set(names)) < len(names):
        raise InputError(f"variants need different names, but are {', '.join(names) or 'none'}.")
    if not levels or min((level for level in levels if isinstance(level, int)), default=1) < 1:
        raise InputError("concurrency must be at least 1.")
    if rounds < 1:
        raise InputError(f"the number of rounds must be at least 1, not {rounds}.")
    if not window_s > 0:
        raise InputError(f"the window must be longer than 0 s, not {window_s:g} s.")
    if not warmup_s >= 0:
        raise InputError(f"the warm-up cannot be shorter than 0 s, but is {warmup_s:g} s.")
    if request_count is not None and request_count < 1:
        raise InputError(f"the number of requests must be at least 1, not {request_count}.")
