"""Versions of a model on the disk: put there without being served, then served by one rename.

Every state that a kill can leave is one that a server loads: old versions under the old
configuration, or all versions under the new one. Nothing is ever deleted but what a killed
installation left aside.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from trimton.core.errors import InputError
from trimton.core.files import write_error
from trimton.plugin.repository import (
    CONFIG_NAME,
    DEFAULT_MODEL_FILENAME,
    Repository,
    RepositoryModel,
    path_digest,
    read_config_text,
)
from trimton.plugin.version_policy import is_pinned, served_versions, with_served_versions

# A server ignores folders of a model whose names are no numbers; some read "3.new" as version 3.
ASIDE_PREFIX = ".trimton-version-"
_CONFIG_ASIDE_PREFIX = ".trimton-config-"  # not an editor's ".config.pbtxt.swp"
_NEWER_BY_NS = 1_000_000
_CONFIG_MODE = 0o644  # a server may run as another user


def pin_served_versions(model: RepositoryModel, default_config: str = "") -> RepositoryModel:
    """Make the policy name what it serves now, so that a new version folder changes nothing.

    ``default_config`` is the text to start from where the model has no ``config.pbtxt``.
    """
    if is_pinned(model.config):
        return model
    served = served_versions(model.config, model.versions)
    return set_served_versions(model, served, default_config)


def set_served_versions(
    model: RepositoryModel, versions: Sequence[int], default_config: str = ""
) -> RepositoryModel:
    """Serve exactly ``versions``: one rename, flushed to the disk. Returns the model as it is then.

    The new ``config.pbtxt`` is younger than everything else in the model's folder, for a server
    reloads only what is younger than what it has, and drops a configuration that a load request
    had brought only then. Raises InputError for a version that is not there.
    """
    if missing := set(versions) - set(model.versions):
        raise InputError(f"{model.folder}: has no version {min(missing)}.")
    if not versions:
        raise InputError(f"{model.folder}: a model must serve a version.")
    text = config_text(model, versions, default_config)
    path = model.folder / CONFIG_NAME
    try:
        descriptor, name = tempfile.mkstemp(prefix=_CONFIG_ASIDE_PREFIX, dir=model.folder)
        aside = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            aside.chmod(stat.S_IMODE(path.stat().st_mode) if path.exists() else _CONFIG_MODE)
            moment = max(time.time_ns(), _newest_ns(model.folder) + _NEWER_BY_NS)
            os.utime(aside, ns=(moment, moment))
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        flush_folder(model.folder)
    except OSError as error:
        raise write_error(path, error) from error
    return reread(model)


def config_text(model: RepositoryModel, versions: Sequence[int], default_config: str = "") -> str:
    """The ``config.pbtxt`` that set_served_versions would write."""
    path = model.folder / CONFIG_NAME
    text = default_config if model.config is None else read_config_text(path)
    return with_served_versions(text, versions)


def install_version(
    model: RepositoryModel, source: Path, *, digest: str | None = None
) -> tuple[RepositoryModel, int]:
    """Copy the version folder ``source`` into ``model`` as its next version, which is not served.

    ``source`` holds ``model.onnx``; here it gets the file name that the configuration names.
    The copy has the time of now, is flushed to the disk, and appears by one rename. Raises
    InputError for a model whose policy would serve any new folder (see pin_served_versions),
    for a source with anything but plain files and folders, and where the copy's path_digest is
    not ``digest``.
    """
    if not is_pinned(model.config):
        raise InputError(f"{model.folder}: would serve any new version; pin its versions first.")
    version = max(model.versions, default=0) + 1
    target = model.folder / str(version)
    try:
        aside = Path(tempfile.mkdtemp(prefix=ASIDE_PREFIX, dir=model.folder))
        try:
            _copy_plain(source, aside)
            if digest not in (None, path_digest(aside)):
                raise InputError(f"{source}: changed while it was copied; judge it again.")
            file = aside / DEFAULT_MODEL_FILENAME
            if model.filename != file.name and file.exists():
                file.rename(aside / model.filename)
            _open_like(model, aside)
            _flush_tree(aside)
            aside.rename(target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        flush_folder(model.folder)
    except OSError as error:
        raise write_error(target, error) from error
    return reread(model), version


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed installation left aside in a model's folder. The caller has its lock."""
    for entry in folder.iterdir():
        if entry.name.startswith(ASIDE_PREFIX):
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name.startswith(_CONFIG_ASIDE_PREFIX):
            entry.unlink(missing_ok=True)


def reread(model: RepositoryModel) -> RepositoryModel:
    """The model as it is on the disk now."""
    return Repository(model.folder.parent).model(model.name)


def flush_folder(folder: Path) -> None:
    """Flush the names in ``folder`` to the disk, so that a rename outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_plain(source: Path, target: Path) -> None:
    for entry in sorted(source.iterdir()):
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise InputError(f"{entry}: is a link or no plain file; a version holds plain files.")
        if entry.is_dir():
            below = target / entry.name
            below.mkdir()
            _copy_plain(entry, below)
        else:
            shutil.copyfile(entry, target / entry.name)


def _open_like(model: RepositoryModel, folder: Path) -> None:
    """Let who may read the model's newest version read ``folder``, too: the server's user, say."""
    mode = stat.S_IMODE((model.folder / str(model.latest())).stat().st_mode)
    for parent, _, names in os.walk(folder):
        os.chmod(parent, mode)
        for name in names:
            os.chmod(os.path.join(parent, name), mode & ~0o111)


def _flush_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(parent, name), "rb") as file:
                os.fsync(file.fileno())
        flush_folder(Path(parent))


def _newest_ns(folder: Path) -> int:
    newest = folder.stat().st_mtime_ns
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            newest = max(newest, os.lstat(os.path.join(parent, name)).st_mtime_ns)
    return newest
