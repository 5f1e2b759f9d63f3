"""A model that may be changed: in the repository itself, and not through links that leave it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimton.core.errors import InputError
from trimton.plugin.ensembles import is_ensemble, members
from trimton.plugin.repository import CONFIG_NAME, Repository, RepositoryModel, check_model_name


def repository_of(repositories: Sequence[Path], model: str) -> Repository:
    """The one of several repositories that holds ``model``; they may be those of one server.

    Raises InputError where none does, or more than one: Triton then serves neither.
    """
    check_model_name(model)
    holders = [path for path in repositories if (path / model).is_dir()]
    if len(holders) != 1:
        where = ", ".join(map(str, holders or repositories))
        what = "is in several repositories" if holders else "is in no repository"
        raise InputError(f"model {model!r} {what} ({where}); name the one that it is in.")
    return Repository(holders[0])


def writable_model(repository: Repository, name: str) -> RepositoryModel:
    """``name`` of ``repository``, if Trimton may change it.

    Raises InputError as Repository.model does, and for an ensemble and for a configuration or a
    version that is a link out of the repository.
    """
    model = repository.model(name)
    if is_ensemble(model.config):
        raise InputError(
            f"{model.folder}: is an ensemble, which has no weights; choose one of its models "
            f"({', '.join(members(model.config))})."
        )
    root = repository.path.resolve()
    for part in (CONFIG_NAME, *map(str, model.versions)):
        path = model.folder / part
        if path.is_symlink() and root not in path.resolve().parents:
            raise InputError(f"{path}: is a link out of the repository; copy what it points to.")
    return model
