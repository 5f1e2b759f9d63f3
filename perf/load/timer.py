"""A timer for event loops that keeps to nanoseconds.

The timers of libuv and asyncio have a resolution of a millisecond, which would make every
request of a schedule late by half of one. Linux's timerfd has the resolution of the clock.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_NS = 1_000_000_000


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Timer:
    """Calls ``on_time`` in ``loop`` at instants of the monotonic clock, one after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_time: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._checked(
            self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        )
        self._spec = _TimerSpec()
        self._loop = loop
        self._on_time = on_time
        loop.add_reader(self._descriptor, self._fire)

    def set(self, instant_ns: int) -> None:
        """Fire at ``instant_ns``, at once where that has passed; replaces an earlier instant."""
        value = self._spec.value
        value.seconds, value.nanoseconds = divmod(instant_ns, _NS)
        self._checked(
            self._libc.timerfd_settime(
                self._descriptor, _TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None
            )
        )

    def close(self) -> None:
        """Fire no more."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _fire(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:  # set anew between becoming readable and this call
            return
        self._on_time()

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
