"""What is in repositories: models, versions, what serves, since when, and on which verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimton.core.errors import InputError
from trimton.plugin.ensembles import is_ensemble, members
from trimton.plugin.promotion.journal import Change, Journal
from trimton.plugin.repository import (
    CONFIG_NAME,
    Repository,
    RepositoryModel,
    open_repository,
    path_digest,
)
from trimton.plugin.version_policy import served_versions


@dataclass(frozen=True)
class ModelOverview:
    """One model. ``problem`` says what keeps a server from loading it, "" where nothing does.

    ``parts`` are an ensemble's models; ``digests`` of config.pbtxt and of every version, where
    asked for; ``changes`` are the journal's.
    """

    repository: Path
    name: str
    versions: tuple[int, ...] = ()
    served: tuple[int, ...] = ()
    parts: tuple[str, ...] = ()
    digests: dict[str, str] | None = None
    changes: tuple[Change, ...] = ()
    problem: str = ""

    @property
    def last_change(self) -> Change | None:
        """What put the served versions into service; None where the journal does not know."""
        moved = (c for c in reversed(self.changes) if c.is_done and c.before != c.after)
        return next(moved, None)


def overview(
    repositories: Sequence[Path], names: Sequence[str] = (), *, digests: bool = False
) -> list[ModelOverview]:
    """The models of ``repositories``, which may be those of one server; only ``names`` if given.

    Raises InputError for what is no repository, and for a name that none has.
    """
    opened = [open_repository(path) for path in repositories]
    found = [(repository, name) for repository in opened for name in repository.names()]
    counts = Counter(name for _, name in found)
    if unknown := [name for name in names if name not in counts]:
        raise InputError(f"{', '.join(map(str, repositories))}: has no model {unknown[0]!r}.")
    return [
        _model(repository, name, digests=digests, is_twice=counts[name] > 1)
        for repository, name in found
        if not names or name in names
    ]


def artefact_digests(model: RepositoryModel) -> dict[str, str]:
    """SHA-256 of the configuration and of every version, by their names in the model's folder."""
    return dict(_digests(model))


def _digests(model: RepositoryModel) -> Iterator[tuple[str, str]]:
    if model.config is not None:
        yield CONFIG_NAME, path_digest(model.folder / CONFIG_NAME)
    for version in model.versions:
        yield str(version), path_digest(model.folder / str(version))


def _model(repository: Repository, name: str, *, digests: bool, is_twice: bool) -> ModelOverview:
    try:
        model = repository.model(name)
    except InputError as error:
        return ModelOverview(repository.path, name, problem=str(error))
    served = served_versions(model.config, model.versions)
    problem = "" if served else "its version policy serves none of its versions"
    if is_twice:
        problem = "is in several repositories: a server loads neither"
    return ModelOverview(
        repository=repository.path,
        name=name,
        versions=model.versions,
        served=served,
        parts=members(model.config) if is_ensemble(model.config) else (),
        digests=artefact_digests(model) if digests else None,
        changes=tuple(Journal(repository.path).changes(name)),
        problem=problem,
    )
