"""The loads that options name: concurrencies, rates, a ramp."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from trimton.core.errors import InputError
from trimton.perf.load.rounds import Level
from trimton.perf.load.schedules import DISTRIBUTIONS, Ramp

# Each request in flight needs a file descriptor, and the usual limit is 1024.
CONCURRENCY_MAX = 1000
# An event loop spends some 10 microseconds on a request by schedule, and the server more.
RATE_MAX_RPS = 100_000


@dataclass(frozen=True)
class Endless(Iterable[Level]):
    """Levels that rise from ``start`` until a limit ends them, at ``largest`` at the latest."""

    start: float
    step: float
    largest: float
    make: Callable[[float], Level]

    def __iter__(self) -> Iterator[Level]:
        values = itertools.count(self.start, self.step)
        return map(self.make, itertools.takewhile(lambda value: value <= self.largest, values))


@dataclass(frozen=True)
class _Kind:
    """How one kind of load is written: its numbers, what they mean, and how many are possible."""

    number: Callable[[str], float]
    make: Callable[[float], Level]
    largest: float
    unit: str
    list_form: str
    range_form: str


_CONCURRENCY = _Kind(
    int,
    int,
    CONCURRENCY_MAX,
    "requests in flight",
    "numbers such as 1,4",
    "START:END:STEP such as 1:4:1",
)


def concurrency_levels(listed: str | None, ranged: str | None) -> Iterable[Level]:
    """The levels of ``--concurrency`` or ``--concurrency-range``, 1 where neither is given.

    With END 0 they are Endless. InputError for anything else.
    """
    if ranged is not None:
        return _range("--concurrency-range", ranged, _CONCURRENCY)
    return _list("--concurrency", listed or "1", _CONCURRENCY)


def rate_levels(listed: str | None, ranged: str | None, distribution: str) -> Iterable[Level]:
    """The levels of ``--request-rate`` or ``--request-rate-range``; see concurrency_levels."""
    try:
        make = DISTRIBUTIONS[distribution]
    except KeyError:
        raise InputError(
            f"--request-distribution {distribution}: choose one of {', '.join(DISTRIBUTIONS)}."
        ) from None
    kind = _Kind(
        float,
        make,
        RATE_MAX_RPS,
        "requests/s",
        "requests per second such as 100,200",
        "START:END:STEP in requests per second, such as 100:500:100",
    )
    if ranged is not None:
        return _range("--request-rate-range", ranged, kind)
    return _list("--request-rate", listed or "", kind)


def ramp_level(text: str) -> Ramp:
    """``--ramp START:END:SECONDS``; InputError for anything else."""
    try:
        start, end, seconds = (float(part) for part in text.split(":"))
    except ValueError:
        start = end = seconds = math.nan
    for rate in (start, end):
        _check_possible("--ramp", text, rate, RATE_MAX_RPS, "requests/s")
    if not (min(start, end) >= 0 and max(start, end) > 0 and 0 < seconds < 86_400):
        raise InputError(
            f"--ramp {text}: give START:END:SECONDS, two rates per second and how long it takes, "
            "such as 100:500:30."
        )
    return Ramp(start, end, seconds)


def _list(option: str, text: str, kind: _Kind) -> list[Level]:
    try:
        values = [kind.number(part) for part in text.split(",")]
    except ValueError:
        values = []
    for value in values:
        _check_possible(option, text, value, kind.largest, kind.unit)
    if not values or not all(value > 0 for value in values):
        raise InputError(f"{option} {text}: give {kind.list_form}, each above 0.")
    return [kind.make(value) for value in dict.fromkeys(values)]


def _range(option: str, text: str, kind: _Kind) -> Iterable[Level]:
    """As perf_analyzer reads it: END defaults to START, STEP to 1."""
    try:
        values = [kind.number(part) for part in text.split(":", 2)]
    except ValueError:
        raise InputError(f"{option} {text}: give {kind.range_form}, each above 0.") from None
    start = values[0]
    end = values[1] if len(values) > 1 else start
    step = values[2] if len(values) > 2 else 1
    for value in (start, end):
        _check_possible(option, text, value, kind.largest, kind.unit)
    if not (start > 0 and step > 0 and (end == 0 or end >= start)):
        raise InputError(f"{option} {text}: give {kind.range_form}, each above 0.")
    if end == 0:
        return Endless(start, step, kind.largest, kind.make)
    # A millionth of a step more, so that rounding does not lose the end.
    count = int((end - start) / step + 1e-6) + 1
    return [kind.make(start + index * step) for index in range(count)]


def _check_possible(option: str, text: str, value: float, largest: float, unit: str) -> None:
    if value > largest:
        raise InputError(
            f"{option} {text}: {value:g} {unit} are more than one client can send "
            f"(at most {largest:g}); give less."
        )
