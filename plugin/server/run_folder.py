"""The folder of one running server: its backends, its name for shared memory, its lock.

``run/<id>/lock`` is locked by the server's owner and its supervisor. The kernel releases the
lock when both are gone, so a folder whose lock can be taken is a dead server's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trimton.core.files import write_error
from trimton.plugin.server import supervisor
from trimton.plugin.server.installation import Installation, home

BACKENDS = Path(__file__).parents[1] / "backends"


@dataclass(frozen=True)
class RunFolder:
    """A new server's folder; ``lock`` is the open file descriptor that keeps it alive."""

    folder: Path
    lock: int

    @property
    def backends(self) -> Path:
        """What ``--backend-directory`` gets: the installation's backends and Trimton's."""
        return self.folder / "backends"

    @property
    def shm_prefix(self) -> str:
        """The beginning of the names of the server's shared memory regions."""
        return shm_prefix(self.folder)


def shm_prefix(folder: Path) -> str:
    """The name of shared memory that belongs to the run folder ``folder``."""
    return f"trimton_{folder.name}_"


@contextlib.contextmanager
def new_run_folder(installation: Installation) -> Iterator[RunFolder]:
    """Yield a run folder for one server, and let go of its lock after the block.

    By then the supervisor holds the lock. Leftovers of dead servers are removed first.
    """
    runs = home() / "run"
    remove_dead(runs)
    folder = runs / secrets.token_hex(6)
    try:
        folder.mkdir(parents=True)
        lock = _lock(folder)
        if lock is None:
            raise OSError(f"{folder} is taken")
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        run = RunFolder(folder, lock)
        run.backends.mkdir()
        for source in _subfolders(installation.triton / "backends"):
            (run.backends / source.name).symlink_to(source)
        # Copies, because the stub writes byte code beside what it imports.
        for source in _subfolders(BACKENDS):
            shutil.copytree(source, run.backends / source.name)
        yield run
    finally:
        os.close(lock)


def remove_dead(runs: Path) -> None:
    """Remove the folders in ``runs`` whose server is gone, and its shared memory."""
    for folder in _subfolders(runs):
        lock = _lock(folder)
        if lock is not None:
            supervisor.remove_leftovers(folder, shm_prefix(folder))
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """An open, exclusively locked file in ``folder``; None if another process holds it."""
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None  # removed by another process meanwhile
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(("_", ".")))
