"""Reading a recipe file: YAML to a checked Recipe, every error with its line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from trimton.core.errors import InputError
from trimton.plugin.recipe import STEPS, Recipe


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises InputError with file, line and mend: missing file, no YAML, an unknown key, a wrong
    type, names that do not agree.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe.") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; give a recipe file (YAML).") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}).") from error
    return parse_recipe(text, path)


def parse_recipe(text: str, path: Path) -> Recipe:
    """Parse the ``text`` of the recipe file ``path``; see load_recipe for the errors."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else 1
        raise InputError(f"{path}: line {line}: {error.problem or 'not valid YAML'}.") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not YAML text ({error}).") from error
    if root is None or not isinstance(document, dict):
        raise InputError(f"{path}: is no recipe; it must be a YAML mapping with version, model, …")
    duplicate = _duplicate_key(root)
    if duplicate is not None:
        key, line = duplicate
        raise InputError(f"{path}: line {line}: the key {key!r} stands twice.")
    try:
        return Recipe.model_validate(_expand_steps(document))
    except ValidationError as error:
        raise InputError(_explain(error, root, path)) from error


def _expand_steps(document: dict[str, Any]) -> dict[str, Any]:
    """Rewrite the short forms: ``- fuse`` and ``- quantize: {…}``; a list for a whole variant."""
    variants = document.get("variants")
    if not isinstance(variants, dict):
        return document
    expanded = {}
    for name, variant in variants.items():
        value = {"steps": variant} if isinstance(variant, list) else variant
        if isinstance(value, dict) and isinstance(value.get("steps"), list):
            value = {**value, "steps": [_expand_step(step) for step in value["steps"]]}
        expanded[name] = value
    return {**document, "variants": expanded}


def _expand_step(step: object) -> object:
    if isinstance(step, str):
        return {"step": step}
    if isinstance(step, dict) and len(step) == 1:
        name, options = next(iter(step.items()))
        if name != "step" and (options is None or isinstance(options, dict)):
            return {"step": name, **(options or {})}
    return step


def _explain(error: ValidationError, root: yaml.Node, path: Path) -> str:
    """The first problem of ``error`` as one sentence with its line."""
    first = error.errors(include_url=False)[0]
    location: Sequence[str | int] = first["loc"]
    message = first["msg"].removeprefix("Value error, ")
    if not location and ":" in message:  # raised by Recipe._names_agree: "a.b: what"
        place = message.split(":", 1)[0]
        location = tuple(place.split("."))
        message = message.split(":", 1)[1].strip()
    if first["type"] == "extra_forbidden":
        message = "unknown key"
    elif first["type"] == "missing":
        message = "is missing"
    line, shown = _locate(root, location)
    if first["type"] == "union_tag_invalid":
        message = f"unknown transform {first['ctx']['tag']}; known: {', '.join(STEPS)}"
    text = message[0].lower() + message[1:]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{path}: line {line}: {shown or 'recipe'}: {text}{more}."


def _locate(root: yaml.Node, location: Sequence[str | int]) -> tuple[int, str]:
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
        if part not in ("steps", *STEPS, "[key]"):
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
