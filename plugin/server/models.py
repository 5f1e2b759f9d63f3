"""A first look at a model repository, before a server is started on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimton.core.errors import InputError


def model_names(repository: Path) -> list[str]:
    """The models in ``repository``: folders with a config.pbtxt or a version's number in them.

    Raises InputError if there is no such folder or no model in it.
    """
    if not repository.exists():
        raise InputError(f"{repository}: no such folder; give a Triton model repository.")
    if not repository.is_dir():
        raise InputError(f"{repository}: is a file; give a Triton model repository, a folder.")
    names = sorted(p.name for p in repository.iterdir() if p.is_dir() and _is_model(p))
    if not names:
        raise InputError(
            f"{repository}: holds no model; a model is a folder with config.pbtxt or with a "
            "version in it, such as my_model/1/model.onnx."
        )
    return names


def check_models(repository: Path, wanted: Sequence[str]) -> None:
    """Raise InputError unless ``repository`` holds every model of ``wanted`` (and at least one)."""
    names = model_names(repository)
    for name in wanted:
        if name not in names:
            raise InputError(f"{repository}: has no model {name!r}; it has {', '.join(names)}.")


def _is_model(folder: Path) -> bool:
    if (folder / "config.pbtxt").is_file():
        return True
    return any(p.is_dir() and p.name.isdecimal() for p in folder.iterdir())
