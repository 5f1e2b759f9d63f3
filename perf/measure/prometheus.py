"""Metrics in Prometheus' text format, as Triton serves them at ``/metrics``.

Source: Prometheus, "Exposition formats", text-based format 0.0.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite

_LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?$")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


@dataclass(frozen=True)
class Series:
    """One time series: a metric with its labels."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    def label(self, name: str) -> str | None:
        """The value of a label; None without it."""
        return dict(self.labels).get(name)


Reading = Mapping[Series, float]


def parse_metrics(text: str) -> dict[Series, float]:
    """The finite samples of one scrape; lines of another form are passed over."""
    return dict(_samples(text.splitlines()))


def increase(before: Reading, after: Reading) -> dict[Series, float]:
    """How much each counter of ``after`` grew; a counter that fell was reset, and counts from 0."""
    grown = {}
    for series, value in after.items():
        start = before.get(series, 0.0)
        grown[series] = value - start if value >= start else value
    return grown


def _samples(lines: Iterable[str]) -> Iterator[tuple[Series, float]]:
    for line in lines:
        found = _LINE.match(line.strip())
        if found is None:
            continue
        name, labels, text = found.groups()
        try:
            value = float(text)
        except ValueError:
            continue
        if isfinite(value):
            yield Series(name, tuple(sorted(_labels(labels or "")))), value


def _labels(text: str) -> Iterator[tuple[str, str]]:
    for name, value in _LABEL.findall(text):
        yield name, re.sub(r"\\.", lambda escape: _ESCAPES.get(escape[0], escape[0]), value)
