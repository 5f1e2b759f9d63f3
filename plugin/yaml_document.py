"""YAML files that people write: read, and every problem told with its line."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from trimton.core.errors import InputError

BYTES_MAX = 1 << 20
_PLACE = re.compile(r"[\w*?-]+(\.[\w*?-]+)*")


@dataclass(frozen=True)
class YamlDocument:
    """The mapping in the file ``path``, a ``kind``, and its tree, which knows the lines."""

    path: Path
    kind: str
    content: dict[str, Any]
    root: yaml.Node

    def explain(self, error: ValidationError, transparent: Collection[str] = ()) -> InputError:
        """The first problem of ``error`` as one sentence with its line.

        ``transparent``: parts of places that the file need not hold, see ``_locate``.
        """
        first = error.errors(include_url=False)[0]
        location: Sequence[str | int] = first["loc"]
        message = first["msg"].removeprefix("Value error, ")
        place, colon, rest = message.partition(": ")  # raised for a whole part: "a.b: what"
        if colon and _PLACE.fullmatch(place) and ("." in place or not location):
            location, message = (*location, *place.split(".")), rest
        if first["type"] == "extra_forbidden":
            message = "unknown key"
        elif first["type"] == "missing":
            message = "is missing"
        line, shown = _locate(self.root, location, transparent)
        if first["type"] == "union_tag_invalid":
            message = f"unknown transform {first['ctx']['tag']}; known: {', '.join(transparent)}"
        text = message[0].lower() + message[1:]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        return InputError(f"{self.path}: line {line}: {shown or self.kind}: {text}{more}.")


def read_yaml(path: Path, kind: str) -> YamlDocument:
    """Read the file ``path``, a ``kind`` ("recipe"); see parse_yaml for the errors."""
    try:
        if path.is_file() and path.stat().st_size > BYTES_MAX:
            raise InputError(f"{path}: is over {BYTES_MAX} bytes; this is no {kind}.")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such {kind}.") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; give a {kind} file (YAML).") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}).") from error
    return parse_yaml(text, path, kind)


def parse_yaml(text: str, path: Path, kind: str) -> YamlDocument:
    """The mapping in ``text`` of the file ``path``.

    Raises InputError with file and line for no YAML, for another thing than a mapping, and for a
    key that stands twice.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else 1
        raise InputError(f"{path}: line {line}: {error.problem or 'not valid YAML'}.") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not YAML text ({error}).") from error
    if root is None or not isinstance(content, dict):
        raise InputError(f"{path}: is no {kind}; it must be a YAML mapping with version, …")
    duplicate = _duplicate_key(root)
    if duplicate is not None:
        key, line = duplicate
        raise InputError(f"{path}: line {line}: the key {key!r} stands twice.")
    return YamlDocument(path, kind, content, root)


def _locate(
    root: yaml.Node, location: Sequence[str | int], transparent: Collection[str]
) -> tuple[int, str]:
    """The line of ``location`` in the YAML tree and its dotted name.

    Parts that the file does not hold (union tags, keys that are missing, the ``steps`` of a
    short form) are passed over, so the line is that of the closest node around the problem.
    """
    node, line, shown = root, root.start_mark.line + 1, list[str]()
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == str(part)), None)
            if found is not None:
                line, node = found[0].start_mark.line + 1, found[1]
                shown.append(str(part))
                continue
            options = node.value[0][1] if len(node.value) == 1 else None
            if isinstance(options, yaml.MappingNode) and node.value[0][0].value == part:
                node = options
                continue
            if isinstance(options, yaml.MappingNode) and any(
                key.value == str(part) for key, _ in options.value
            ):
                node = options
                pair = next(pair for pair in options.value if pair[0].value == str(part))
                line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
            shown.append(str(part))
            continue
        if part not in ("steps", *transparent, "[key]"):
            shown.append(str(part))
    return line, ".".join(shown)


def _duplicate_key(node: yaml.Node) -> tuple[str, int] | None:
    """The first key that stands twice in one mapping, with its line."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                return key.value, key.start_mark.line + 1
            seen.add(key.value)
            below = _duplicate_key(value)
            if below is not None:
                return below
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            below = _duplicate_key(item)
            if below is not None:
                return below
    return None
