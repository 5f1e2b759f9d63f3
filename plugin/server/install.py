"""Installing the local Triton server: built aside, verified by serving, renamed into place."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from trimton.core.errors import InfrastructureError
from trimton.core.files import write_error
from trimton.plugin.server import installation as layout
from trimton.plugin.server.installation import REQUIREMENTS, Installation, requirements_digest
from trimton.plugin.server.interpreter import Interpreter, fetch_library, find_interpreter
from trimton.plugin.server.probe import verify

# The wheels' own floor (manylinux_2_35).
OLDEST_GLIBC = (2, 35)

# What pip prints -> what it means.
_CAUSES = {
    "No space left on device": "the disk is full; free 500 MB.",
    "Disk quota exceeded": "the disk quota is used up; free 500 MB.",
    "(from versions: none)": "pip cannot reach its package index; check the network.",
    "DO NOT MATCH THE HASHES": "the package index serves other files than the pinned ones; "
    "check pip's index settings ('pip config list').",
}

_TEMPORARY = ".server-new-"
_BACKEND_FILES = ("libtriton_python.so", "triton_python_backend_utils.py")
_STUB = "triton_python_backend_stub"

Notify = Callable[[str], None]


@dataclass(frozen=True)
class InstallResult:
    """What an install ended with; ``changed`` is False where a whole server was already there."""

    installation: Installation
    changed: bool


def install(*, force: bool = False, notify: Notify = lambda step: None) -> InstallResult:
    """Install the server into the user's cache unless a whole one is there; see ``installation``.

    ``notify`` hears of each step. Interrupted at any point, this leaves what was there before,
    and the next call removes the remains. Raises InfrastructureError, in one sentence, where the
    machine, the network, the disk or pip refuses, or the new server does not serve.
    """
    target = layout.server_folder()
    with _exclusive(target.parent, notify) as lock:
        for remains in target.parent.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(remains, ignore_errors=True)
        present = layout.find_installation()
        if present and not force:
            return InstallResult(present, changed=False)
        check_machine()
        interpreter = find_interpreter()
        with _temporary_folder(target.parent) as name:
            made = _build(name, interpreter, notify, lock)
            notify("verifying: serving a probe model")
            made = replace(made, triton_version=verify(made))
            made.write_record()
            made.folder.chmod(0o755)  # a temporary folder is its maker's alone
            _swap(made.folder, target)
        return InstallResult(replace(made, folder=target), changed=True)


def uninstall() -> bool:
    """Remove the installed server; False if there was none."""
    target = layout.server_folder()
    if not target.exists():
        return False
    with _exclusive(target.parent, lambda step: None), _temporary_folder(target.parent) as name:
        target.rename(name / "old")
    return True


def check_machine() -> None:
    """Raise InfrastructureError if the server's binaries cannot run on this machine."""
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        raise InfrastructureError(
            f"the local Triton server runs on Linux on x86_64, but this is {system} on {machine}; "
            "measure on a remote Triton instead."
        )
    name, version = platform.libc_ver()
    if name != "glibc":
        raise InfrastructureError(
            "the local Triton server needs glibc, which this Linux lacks; use one with glibc "
            f"{'.'.join(map(str, OLDEST_GLIBC))} or newer (Debian 12, Ubuntu 22.04)."
        )
    if tuple(map(int, version.split("."))) < OLDEST_GLIBC:
        raise InfrastructureError(
            f"the local Triton server needs glibc {'.'.join(map(str, OLDEST_GLIBC))} or newer, but "
            f"this is {version}; use a newer Linux (Debian 12, Ubuntu 22.04)."
        )


def _build(folder: Path, interpreter: Interpreter, notify: Notify, lock: int) -> Installation:
    """Make the environment in ``folder``; it does not depend on the folder's name."""
    version = interpreter.version
    packages = layout.packages(folder, version)
    notify("making an environment")
    _run_python([interpreter.executable, "-m", "venv", "--without-pip", str(folder)], lock)
    notify("downloading Triton, ONNX Runtime and numpy (about 100 MB)")
    _pip_install(packages, version, lock)
    try:
        notify("arranging")
        _provide_library(interpreter, layout.libraries(folder))
        _arrange(packages, layout.triton(folder, version), version)
    except OSError as error:
        raise write_error(folder, error) from error
    return Installation(
        folder=folder,
        triton_version="",  # known once it has served
        onnxruntime_version=_package_version(packages, "onnxruntime"),
        numpy_version=_package_version(packages, "numpy"),
        python_version=version,
        requirements=requirements_digest(),
        sizes_bytes=_sizes_bytes(folder, packages, version),
    )


def _pip_install(packages: Path, version: str, lock: int) -> None:
    """Install the pinned wheels for Python ``version``, whichever Python pip itself runs on."""
    if find_spec("pip") is None:
        raise InfrastructureError(
            f"{sys.executable}: has no pip; run '{sys.executable} -m ensurepip'."
        )
    _run_python(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-input", "--no-deps", "--require-hashes", "--only-binary=:all:"),
            *("--python-version", version, "--implementation", "cp", "--abi", _abi(version)),
            *("--abi", "none", *_platform_options()),
            *("--target", str(packages), "--requirement", str(REQUIREMENTS)),
        ],
        lock,
    )


def _abi(version: str) -> str:
    return f"cp{version.replace('.', '')}"


def _platform_options() -> Iterator[str]:
    for minor in range(OLDEST_GLIBC[1], 16, -1):
        yield from ("--platform", f"manylinux_2_{minor}_x86_64")


def _run_python(command: list[str], lock: int) -> None:
    """Run a step of the installation, which holds the lock even if its starter is killed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=(lock,))
    if done.returncode == 0:
        return
    reason = reason_of(done.stderr + done.stdout) or f"exit code {done.returncode}"
    raise InfrastructureError(f"the Triton server cannot be installed: {reason}")


def reason_of(output: str) -> str:
    """Why pip failed, in a few words: a known cause, else the last line it printed."""
    for pattern, reason in _CAUSES.items():
        if pattern in output:
            return reason
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1].removeprefix("ERROR: ") if lines else ""


def _provide_library(interpreter: Interpreter, folder: Path) -> None:
    """Put libpython where the stub's loader looks: a link, or Debian's package unpacked."""
    folder.mkdir()
    if interpreter.library:
        (folder / interpreter.library_name).symlink_to(interpreter.library)
    else:
        fetch_library(interpreter, folder)


def _arrange(packages: Path, triton: Path, version: str) -> None:
    """Keep of the Triton wheel the server, its Python backend and its licence."""
    backend = triton / "backends" / "python"
    stub = shutil.copy(triton / "python_backend_stubs" / version / _STUB, backend)
    Path(stub).chmod(0o755)
    (triton / "bin" / "tritonserver").chmod(0o755)
    shutil.rmtree(triton / "python_backend_stubs")
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for entry in triton.parent.iterdir():
        if entry != triton:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    # 32 MB that only the stub of Python 3.13 loads.
    for library in (packages / "nvidia_pytriton.libs").glob("libpython3-*"):
        library.unlink()


def _sizes_bytes(folder: Path, packages: Path, version: str) -> dict[str, int]:
    triton = layout.triton(folder, version)
    files = [
        triton / "bin" / "tritonserver",
        *(triton / "backends" / "python" / name for name in (*_BACKEND_FILES, _STUB)),
        *(packages / "nvidia_pytriton.libs").iterdir(),
        *(packages / "onnxruntime" / "capi").glob("*.so*"),
        *(packages / "numpy").rglob("*.so"),
        *layout.libraries(folder).iterdir(),
    ]
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(files)}


def _package_version(packages: Path, name: str) -> str:
    (folder,) = packages.glob(f"{name}-*.dist-info")
    return folder.name.removeprefix(f"{name}-").removesuffix(".dist-info")


@contextlib.contextmanager
def _exclusive(folder: Path, notify: Notify) -> Iterator[int]:
    """Hold, and yield, the lock of the cache ``folder``; another install is waited for."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            notify("waiting for another installation to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


@contextlib.contextmanager
def _temporary_folder(parent: Path) -> Iterator[Path]:
    """A folder beside the target, removed after the block unless it has been renamed."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=parent))
    except OSError as error:
        raise write_error(parent, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _swap(made: Path, target: Path) -> None:
    """Rename ``made`` to ``target``; what was there before goes away."""
    try:
        with _temporary_folder(target.parent) as old:
            if target.exists():
                target.rename(old / "old")
            made.rename(target)
    except OSError as error:
        raise write_error(target, error) from error
