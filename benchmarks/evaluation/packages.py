"""Files that packages ship, in the user's cache; none is ever copied into the repository."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from real_models import install

from trimton.core.files import replacing, replacing_folder
from trimton.plugin.server.installation import home

Array = npt.NDArray[Any]

PILLOW = "pillow==12.0.0"


def debian_files(package: str) -> Path:
    """The unpacked files of a Debian package, fetched once with apt; nothing is installed.

    CalledProcessError where apt knows no such package (after an upgrade: ``apt-get update``).
    """
    folder = home() / "models" / f"debian-{package}"
    if not folder.is_dir():
        with replacing_folder(folder) as temporary:
            # Root downloads as another user by default, who may not write into the cache.
            download = ["apt-get", "-o", "APT::Sandbox::User=root", "download", package]
            subprocess.run(download, cwd=temporary, check=True, stdout=subprocess.DEVNULL)
            (archive,) = temporary.glob("*.deb")
            subprocess.run(["dpkg-deb", "--extract", archive, temporary], check=True)
            archive.unlink()
    return folder


def imaging(name: str) -> ModuleType:
    """A module of Pillow, such as ``PIL.Image``; Trimton itself does without it."""
    folder = str(install(PILLOW))
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def cached(name: str, build: Callable[[], Mapping[str, Array]]) -> dict[str, Array]:
    """The arrays of ``build``, kept in a file ``name`` (which holds its version)."""
    path = home() / "models" / f"{name}.npz"
    if not path.exists():
        arrays = build()
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}
