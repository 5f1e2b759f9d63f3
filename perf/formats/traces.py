"""Traces of arrivals: when requests came, to be replayed.

A trace is a text file with one arrival on each line, in seconds on any clock, ascending; empty
lines and lines that begin with ``#`` are skipped. perf_analyzer's ``--request-intervals`` file
has the gaps between requests instead, in microseconds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimton.core.errors import InputError
from trimton.core.files import write_text
from trimton.perf.load.schedules import Trace

_NS_PER_S = 1_000_000_000
_NS_PER_US = 1000


def read_trace(path: Path) -> Trace:
    """The arrivals of ``path``; InputError with the line that is wrong."""
    instants_ns = _numbers(path, _NS_PER_S, "seconds")
    steps = np.diff(instants_ns)
    if (steps < 0).any():
        raise InputError(
            f"{path}: arrival {int(np.argmax(steps < 0)) + 2} comes before the one above it; "
            "sort the file by time."
        )
    return Trace(instants_ns - instants_ns[0])


def read_intervals(path: Path) -> Trace:
    """The arrivals that the gaps in ``path`` make, the first after the first gap's place at 0."""
    gaps_ns = _numbers(path, _NS_PER_US, "microseconds")
    if (gaps_ns < 0).any():
        raise InputError(
            f"{path}: interval {int(np.argmax(gaps_ns < 0)) + 1} is negative; give the "
            "microseconds between one request and the next."
        )
    return Trace(np.concatenate([[0], np.cumsum(gaps_ns)]))


def write_trace(path: Path, instants_ns: npt.NDArray[np.int64]) -> None:
    """Write ``instants_ns`` [requests] as seconds from the first, with all their digits."""
    offsets = np.sort(instants_ns) - instants_ns.min()
    lines = (f"{ns // _NS_PER_S}.{ns % _NS_PER_S:09d}\n" for ns in offsets.tolist())
    write_text(path, "# arrivals of requests, in seconds from the first\n" + "".join(lines))


def _numbers(path: Path, ns_per_unit: int, unit: str) -> npt.NDArray[np.int64]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InputError(f"{path}: cannot be read ({reason.lower()}).") from error
    numbers = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            whole, _, fraction = text.partition(".")
            numbers.append(_nanoseconds(whole, fraction, ns_per_unit))
        except ValueError:
            raise InputError(
                f"{path}, line {number}: {text!r} is no number; give {unit}, one on each line."
            ) from None
    if not numbers:
        raise InputError(f"{path}: holds no numbers; give {unit}, one on each line.")
    return np.array(numbers, np.int64)


def _nanoseconds(whole: str, fraction: str, ns_per_unit: int) -> int:
    """Exact, because a float cannot hold nanoseconds since 1970."""
    sign = -1 if whole.startswith("-") else 1
    digits = len(str(ns_per_unit)) - 1
    if fraction and not fraction.isdecimal():
        raise ValueError(fraction)
    return int(whole or "0") * ns_per_unit + sign * int((fraction + "0" * digits)[:digits] or 0)
