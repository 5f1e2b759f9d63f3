"""The local Triton server on disk: where it lives and whether it is whole.

``$TRIMTON_HOME``, else ``$XDG_CACHE_HOME/trimton``, else ``~/.cache/trimton`` holds

    server/installation.json    what is installed: the record below
    server/bin, server/lib      a virtual environment with numpy, onnxruntime and Triton
    server/libpython/           libpython of its interpreter, for the Python stub
    run/<id>/                   one folder for each running server

The folder ``server/`` appears by one rename, so it is whole or absent.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from trimton.core.errors import InfrastructureError, InputError

RECORD = "installation.json"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def home() -> Path:
    """The folder in the user's cache that holds everything Trimton installs or runs there."""
    if own := os.environ.get("TRIMTON_HOME"):
        return Path(own).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "trimton"


def server_folder() -> Path:
    """Where the server is installed, or would be."""
    return home() / "server"


def requirements_digest() -> str:
    """SHA-256 of the pinned requirements: an installation of another digest is out of date."""
    return hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()


def packages(folder: Path, python_version: str) -> Path:
    """Where the environment in ``folder`` keeps its packages."""
    return folder / "lib" / f"python{python_version}" / "site-packages"


def triton(folder: Path, python_version: str) -> Path:
    """Triton's own tree in the environment in ``folder``."""
    return packages(folder, python_version) / "pytriton" / "tritonserver"


def libraries(folder: Path) -> Path:
    """Where the environment in ``folder`` keeps libpython."""
    return folder / "libpython"


@dataclass(frozen=True)
class Installation:
    """A complete Triton server with an environment of its own for Python-based backends.

    ``sizes_bytes`` lists the files without which it cannot run, relative to ``folder``.
    ``triton_version`` is as the server itself answered when it was verified.
    """

    folder: Path
    triton_version: str
    onnxruntime_version: str
    numpy_version: str
    python_version: str
    requirements: str
    sizes_bytes: dict[str, int]

    @property
    def programs(self) -> Path:
        """The environment's ``bin``: the stub takes the ``python3`` that is first on PATH."""
        return self.folder / "bin"

    @property
    def libraries(self) -> Path:
        """The folder with libpython, for the dynamic loader."""
        return libraries(self.folder)

    @property
    def triton(self) -> Path:
        """Triton's own tree: ``bin/``, ``backends/``, ``caches/``."""
        return triton(self.folder, self.python_version)

    @property
    def executable(self) -> Path:
        """The server program."""
        return self.triton / "bin" / "tritonserver"

    def defect(self) -> str | None:
        """Why this installation cannot be used, or None. Reads sizes only, so it is instant."""
        if self.requirements != requirements_digest():
            return "it was made by another version of Trimton"
        if not (self.programs / "python3").exists():
            return f"the Python {self.python_version} it was made with is gone"
        for name, size_bytes in self.sizes_bytes.items():
            path = self.folder / name
            if not path.is_file():
                return f"{path} is missing"
            if path.stat().st_size != size_bytes:
                return f"{path} has changed"
        return None

    def write_record(self) -> None:
        """Write the record into ``folder``."""
        values = {k: v for k, v in asdict(self).items() if k != "folder"}
        (self.folder / RECORD).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_installation(folder: Path) -> Installation | None:
    """The installation recorded in ``folder``, whole or not; None where there is none."""
    try:
        values = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return Installation(folder=folder, **values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise InfrastructureError(
            f"{folder / RECORD}: cannot be read; run 'trimton server install --force'."
        ) from error


def find_installation() -> Installation | None:
    """The installed server, or None where there is none or it cannot be used any more."""
    installation = read_installation(server_folder())
    return installation if installation and installation.defect() is None else None


def require_installation() -> Installation:
    """The installed server. Raises InputError (exit 2) that says how to install one."""
    installation = read_installation(server_folder())
    if installation is None:
        raise InputError(
            f"no Triton server is installed in {server_folder()}; run 'trimton server install'."
        )
    if defect := installation.defect():
        raise InputError(
            f"the Triton server in {server_folder()} cannot be used, because {defect}; "
            "run 'trimton server install'."
        )
    return installation
