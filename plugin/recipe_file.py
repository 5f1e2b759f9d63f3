"""Reading a recipe file: YAML to a checked Recipe, every error with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trimton.plugin.recipe import Recipe
from trimton.plugin.steps import STEPS
from trimton.plugin.yaml_document import YamlDocument, parse_yaml, read_yaml


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises InputError with file, line and mend: missing file, no YAML, an unknown key, a wrong
    type, names that do not agree.
    """
    return _recipe(read_yaml(path, "recipe"))


def parse_recipe(text: str, path: Path) -> Recipe:
    """Parse the ``text`` of the recipe file ``path``; see load_recipe for the errors."""
    return _recipe(parse_yaml(text, path, "recipe"))


def _recipe(document: YamlDocument) -> Recipe:
    try:
        return Recipe.model_validate(_expand_steps(document.content))
    except ValidationError as error:
        raise document.explain(error, transparent=STEPS) from error


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
