"""Reading a policy file: YAML to a checked PolicyFile, every error with its line."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from trimton.core.errors import InputError
from trimton.plugin.policy import Policy, PolicyFile
from trimton.plugin.yaml_document import read_yaml


def load_policy(path: Path) -> PolicyFile:
    """Read and check a policy, with every combination of what it overrides.

    Raises InputError with file, line and mend: missing file, no YAML, an unknown key or metric, a
    wrong type, limits that nothing can hold.
    """
    document = read_yaml(path, "policy")
    try:
        return PolicyFile.model_validate(document.content)
    except ValidationError as error:
        raise document.explain(error) from error


def policy_for(
    file: PolicyFile, path: Path, *, model: str, environment: str | None, candidate: str
) -> Policy:
    """What ``file``, read from ``path``, asks of a run; InputError for an unknown environment."""
    if environment is not None and environment not in file.environments:
        have = ", ".join(file.environments) or "none"
        raise InputError(f"{path}: has no environment {environment!r} (environments: {have}).")
    return file.for_run(model, environment, candidate)
