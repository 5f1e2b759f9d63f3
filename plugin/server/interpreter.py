"""Which Python the server's stub embeds: one with a shared libpython and a stub built for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trimton.core.errors import InfrastructureError

# numpy 1.26, which the stub needs, has wheels up to 3.12; Trimton itself starts at 3.11.
SUPPORTED_VERSIONS = ("3.11", "3.12")

_DESCRIBE = """
import json, sys, sysconfig
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2],
    "folders": [sysconfig.get_config_var("LIBDIR") or "", sys.base_prefix + "/lib"],
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python that the stub can embed; ``library`` is its shared libpython, if it has one."""

    executable: str
    version: str
    library: Path | None

    @property
    def library_name(self) -> str:
        """The file name under which the stub asks the dynamic loader for libpython."""
        return library_name(self.version)


def library_name(version: str) -> str:
    """The soname of libpython ``version``."""
    return f"libpython{version}.so.1.0"


def find_interpreter() -> Interpreter:
    """The running Python if the server supports it, else the first supported one on PATH.

    One with a shared libpython wins. Raises InfrastructureError if there is none.
    """
    found = [i for i in map(_describe, _candidates()) if i and i.version in SUPPORTED_VERSIONS]
    if not found:
        own = ".".join(map(str, sys.version_info[:2]))
        raise InfrastructureError(
            f"the local Triton server needs Python {' or '.join(SUPPORTED_VERSIONS)}, but this is "
            f"{own} and no other is on PATH; install one of them."
        )
    return next((i for i in found if i.library), found[0])


def fetch_library(interpreter: Interpreter, folder: Path) -> Path:
    """Fetch Debian's libpython for ``interpreter`` into ``folder``, without root.

    Raises InfrastructureError that says what to install where that is impossible.
    """
    package = f"libpython{interpreter.version}"
    missing = InfrastructureError(
        f"{interpreter.executable}: has no shared {interpreter.library_name}, which the Triton "
        f"server needs; install it (Debian, Ubuntu: apt-get install {package}; pyenv: "
        "PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install)."
    )
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise missing
    with tempfile.TemporaryDirectory(prefix="trimton-deb-") as name:
        scratch = Path(name)
        try:
            _run(["apt-get", "download", package], scratch)
            (archive,) = scratch.glob(f"{package}_*.deb")
            _run(["dpkg-deb", "-x", str(archive), "tree"], scratch)
            source = next(scratch.glob(f"tree/usr/lib/*/{interpreter.library_name}"))
        except (OSError, subprocess.SubprocessError, ValueError, StopIteration) as error:
            raise missing from error
        return Path(shutil.copy(source, folder / interpreter.library_name))


def _candidates() -> Iterator[str]:
    yield sys.executable
    for version in reversed(SUPPORTED_VERSIONS):
        if path := shutil.which(f"python{version}"):
            yield path


def _describe(executable: str) -> Interpreter | None:
    try:
        done = subprocess.run(
            [executable, "-I", "-c", _DESCRIBE], capture_output=True, timeout=60, check=True
        )
        facts = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None  # a broken shim on PATH is no candidate
    name = library_name(facts["version"])
    paths = [Path(folder) / name for folder in facts["folders"] if folder]
    library = next((path.resolve() for path in paths if path.exists()), None)
    return Interpreter(executable, facts["version"], library)


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, capture_output=True, timeout=300, check=True)
