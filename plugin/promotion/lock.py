"""One change of a model at a time: an advisory lock that ends with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from trimton.core.errors import InfrastructureError
from trimton.core.files import write_error

_POLL_S = 0.05


@contextlib.contextmanager
def model_lock(repository: Path, model: str, *, timeout_s: float = 300.0) -> Iterator[None]:
    """Hold the lock of ``model`` in the folder ``repository``.

    The lock is a file at the top of the repository, where servers look for folders only; it stays
    there. Raises InfrastructureError if another process holds it for ``timeout_s``.
    """
    path = repository / f".{model}.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        _acquire(descriptor, path, time.monotonic() + timeout_s)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                raise InfrastructureError(
                    f"{path}: is held by another change of this model (process {holder}); "
                    "wait until it has ended."
                ) from error
        time.sleep(_POLL_S)
