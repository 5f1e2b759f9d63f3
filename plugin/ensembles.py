"""Ensembles, and the models that they are made of."""

from __future__ import annotations

from dataclasses import dataclass

from trimton.plugin.repository import (
    CONFIG_NAME,
    ModelConfig,
    Repository,
    parse_config,
    read_config_text,
)

LATEST = -1  # Triton's number for whatever version is the highest that is served


@dataclass(frozen=True)
class Membership:
    """A model in an ensemble; ``version`` is LATEST or the one that the ensemble insists on."""

    ensemble: str
    version: int


def is_ensemble(config: ModelConfig | None) -> bool:
    """Whether a configuration describes an ensemble, which has no model file of its own."""
    return config is not None and bool(config.ensemble_scheduling.step)


def members(config: ModelConfig) -> tuple[str, ...]:
    """The models of an ensemble, each once, in the order of its steps."""
    return tuple(dict.fromkeys(step.model_name for step in config.ensemble_scheduling.step))


def memberships(repository: Repository, model: str) -> tuple[Membership, ...]:
    """The ensembles of ``repository`` that ``model`` is part of, by name."""
    found = []
    for name in repository.names():
        path = repository.path / name / CONFIG_NAME
        if not path.exists():
            continue
        text = read_config_text(path)
        if "ensemble_scheduling" not in text:  # parsing a thousand others would take a second
            continue
        steps = parse_config(text, path).ensemble_scheduling.step
        versions = {int(s.model_version) for s in steps if s.model_name == model}
        found += [Membership(name, version) for version in sorted(versions)]
    return tuple(found)


def insisted_versions(repository: Repository, model: str) -> dict[int, str]:
    """The versions of ``model`` that ensembles insist on, each with the name of one that does."""
    found = memberships(repository, model)
    return {m.version: m.ensemble for m in found if m.version != LATEST}
