"""The timer fires at its instants, never before, and not after it was closed."""

from __future__ import annotations

import asyncio
from time import monotonic_ns

import uvloop

from trimton.perf.load.timer import Timer

MS = 1_000_000


def fired_at(*sets: tuple[int, int], close_after_s: float | None = None) -> list[int]:
    """Delays in nanoseconds from the start; each of ``sets`` is (set after, due after)."""
    fired: list[int] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        start_ns = monotonic_ns()
        timer = Timer(loop, lambda: fired.append(monotonic_ns() - start_ns))
        for after_ns, due_ns in sets:
            await asyncio.sleep(after_ns / 1e9)
            timer.set(start_ns + due_ns)
        if close_after_s is None:
            while not fired:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.02)
        timer.close()
        await asyncio.sleep(close_after_s or 0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    return fired


def test_it_fires_once_and_not_before_its_instant():
    [delay_ns] = fired_at((0, 5_300_000))
    assert delay_ns >= 5_300_000


def test_an_instant_that_has_passed_fires_at_once():
    assert len(fired_at((0, -10 * MS))) == 1


def test_a_later_set_replaces_the_earlier():
    [delay_ns] = fired_at((0, 1000 * MS), (0, 10 * MS))
    assert 10 * MS <= delay_ns < 1000 * MS


def test_a_closed_timer_is_silent():
    assert fired_at((0, 5 * MS), close_after_s=0.03) == []
