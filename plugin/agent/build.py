"""Building the agent's library with a C compiler."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from trimton.core.errors import InfrastructureError, InputError
from trimton.core.files import replacing_folder
from trimton.plugin.server.installation import home

AGENT_NAME = "trimton"  # what config.pbtxt calls it
LIBRARY_NAME = f"libtritonrepoagent_{AGENT_NAME}.so"
CHECKER_NAME = "check.py"

_SOURCES = Path(__file__).parent
_FLAGS = (
    *("-std=c11", "-D_GNU_SOURCE", "-O2", "-g0", "-Wall", "-Wextra", "-Werror"),
    *("-shared", "-fPIC", "-fvisibility=hidden", "-fstack-protector-strong", "-Wl,-z,relro,-z,now"),
)


def agents_folder() -> Path:
    """Where the agent goes if no folder is given; ``--repoagent-directory`` of a server."""
    return home() / "repoagents"


def c_compiler() -> tuple[str, ...]:
    """The command of a C compiler: $CC, else ``cc``, else the Python package ``ziglang``.

    Raises InputError where there is none.
    """
    named = os.environ.get("CC") or "cc"
    if shutil.which(named) is not None:
        return (named,)
    if "CC" not in os.environ and importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "cc")
    raise InputError(
        f"there is no C compiler {named!r}; install one (Debian: apt-get install gcc libc6-dev; "
        "without root: pip install ziglang) or name it in CC."
    )


def build_agent(folder: Path) -> Path:
    """Compile the agent into ``folder``/trimton, beside the check it runs; returns the library.

    What was there is replaced as a whole. Raises InputError without a C compiler (see
    c_compiler) and InfrastructureError, with the compiler's first error, if it fails.
    """
    compiler = c_compiler()
    target = folder / AGENT_NAME
    with replacing_folder(target) as temporary:
        sources = sorted(str(path) for path in _SOURCES.glob("*.c"))
        command = [*compiler, *_FLAGS, "-o", str(temporary / LIBRARY_NAME), *sources, "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            raise InfrastructureError(
                f"{compiler[0]} does not compile the agent: {(errors or [done.stderr])[0].strip()}"
            )
        shutil.copyfile(_SOURCES / CHECKER_NAME, temporary / CHECKER_NAME)
    return target / LIBRARY_NAME
