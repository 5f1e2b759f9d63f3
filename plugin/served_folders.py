"""A repository for one server out of model folders that live in several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimton.core.files import write_error
from trimton.plugin.repository import CONFIG_NAME, ModelConfig, RepositoryModel, write_config


def stage_models(models: Sequence[RepositoryModel], folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Make the repository ``folder`` of ``models``; returns it and each model's name in it.

    Files are linked, not copied. Models of the same name from different repositories get a
    number behind it, and their configuration carries the new name.
    """
    names: dict[Path, str] = {}
    for model in models:
        if model.folder in names:
            continue
        name, number = model.name, 2
        while name in names.values():
            name, number = f"{model.name}_{number}", number + 1
        names[model.folder] = name
        _stage(model, folder / name, name)
    return folder, tuple(names[model.folder] for model in models)


def _stage(model: RepositoryModel, folder: Path, name: str) -> None:
    try:
        folder.mkdir(parents=True)
        for entry in model.folder.iterdir():
            if entry.name != CONFIG_NAME:
                (folder / entry.name).symlink_to(entry.resolve())
    except OSError as error:
        raise write_error(folder, error) from error
    if model.config is not None:
        config: ModelConfig = type(model.config)()
        config.CopyFrom(model.config)
        config.name = name
        write_config(folder / CONFIG_NAME, config)
