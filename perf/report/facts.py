"""The environment and the settings of a run, flattened to labelled lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trimton.perf.report import numbers
from trimton.perf.report.document import RunDocument


@dataclass(frozen=True)
class FactGroup:
    """A heading with its (label, value) lines."""

    title: str
    lines: tuple[tuple[str, str], ...]


def fact_groups(document: RunDocument) -> list[FactGroup]:
    """Hardware, server, versions and whatever else the environment holds, then the settings.

    Every mapping at the top of either becomes a group; single values gather under one title.
    """
    return [
        *_groups("Environment", document.environment),
        *_groups("Settings", document.settings),
    ]


def server_text(document: RunDocument) -> str:
    """Name and version of the server as it reports them; empty where there was none."""
    server = document.environment.get("server")
    if not isinstance(server, Mapping):
        return str(server) if server else ""
    return " ".join(str(server[key]) for key in ("name", "version") if server.get(key))


def _groups(title: str, values: Mapping[str, Any]) -> Iterator[FactGroup]:
    nested = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    single = {key: value for key, value in values.items() if key not in nested}
    for name, inner in ((title, single), *nested.items()):
        if lines := tuple(_lines((), inner)):
            yield FactGroup(_words(name).capitalize(), lines)


def _lines(path: tuple[str, ...], value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _lines((*path, str(key)), inner)
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        for place, item in enumerate(value, 1):
            yield from _lines((*path, str(place)), item)
    else:
        *above, key = path
        stem, unit, text = _measured(key)
        label = " · ".join((*above, _words(stem)))
        yield label, f"{text(value)} {unit}".rstrip()


def _words(key: str) -> str:
    return key.replace("_", " ")


def _measured(key: str) -> tuple[str, str, Callable[[Any], str]]:
    """A key without the unit at its end, that unit, and how its values are shown."""
    stem, _, end = key.rpartition("_")
    if stem and end in _UNITS:
        return stem, *_UNITS[end]
    return key, "", _text


def _text(value: Any) -> str:
    if value is None:
        return numbers.MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bytes(value: Any) -> str:
    return numbers.size_text(value) if isinstance(value, int | float) else _text(value)


_UNITS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "bytes": ("", _bytes),
    "s": ("s", _text),
    "ms": ("ms", _text),
    "pct": ("%", _text),
}
