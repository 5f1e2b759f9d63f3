"""The environment and the settings of a run, flattened to labelled lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trimton.perf.report import numbers
from trimton.perf.report.document import RunDocument

_TITLES = {"hardware": "Hardware", "versions": "Versions", "server": "Server"}


@dataclass(frozen=True)
class FactGroup:
    """A heading with its (label, value) lines."""

    title: str
    lines: tuple[tuple[str, str], ...]


def fact_groups(document: RunDocument) -> list[FactGroup]:
    """Hardware, server, versions and whatever else the environment holds, then the settings."""
    known = [key for key in _TITLES if key in document.environment]
    others = [key for key in document.environment if key not in _TITLES]
    groups = [_group(_TITLES[key], document.environment[key]) for key in known]
    if others:
        groups.append(_group("Environment", {key: document.environment[key] for key in others}))
    groups.append(_group("Settings", document.settings))
    return [group for group in groups if group.lines]


def server_text(document: RunDocument) -> str:
    """Name and version of the server as it reports them; empty where there was none."""
    server = document.environment.get("server")
    if not isinstance(server, Mapping):
        return str(server) if server else ""
    return " ".join(str(server[key]) for key in ("name", "version") if server.get(key))


def _group(title: str, value: Any) -> FactGroup:
    return FactGroup(title, tuple(_lines("", value)))


def _lines(label: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _lines(f"{label} · {_words(key)}" if label else _words(key), inner)
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        for place, item in enumerate(value, 1):
            yield from _lines(f"{label} {place}".strip(), item)
    else:
        yield label or "value", _text(label, value)


def _words(key: object) -> str:
    return str(key).replace("_", " ")


def _text(label: str, value: Any) -> str:
    if value is None:
        return numbers.MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_text("", item) for item in value) or "none"
    if isinstance(value, int | float) and label.endswith("bytes"):
        return numbers.size_text(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
