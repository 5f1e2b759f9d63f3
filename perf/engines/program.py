"""Where perf_analyzer is: named by the user, on PATH, or in Trimton's cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trimton.core.errors import InputError

PROGRAM = "perf_analyzer"
VARIABLE = "TRIMTON_PERF_ANALYZER"

_VERSION = re.compile(r"Perf Analyzer Version (\S+)", re.IGNORECASE)
_ANSWER_TIMEOUT_S = 30


@dataclass(frozen=True)
class Program:
    """A perf_analyzer that has answered with its version."""

    path: Path
    version: str

    @classmethod
    def at(cls, path: Path) -> Program | None:
        """The program at ``path``; None where there is none or it does not start."""
        try:
            done = subprocess.run(
                [path, "--version"],
                capture_output=True,
                text=True,
                timeout=_ANSWER_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        found = _VERSION.search(done.stdout + done.stderr)
        return None if found is None else cls(path, found[1])


def cached_program(cache: Path) -> Path:
    """Where perf_analyzer stands below the cache folder ``cache``, if it was installed there."""
    return cache / "perf_analyzer" / PROGRAM


def find_program(cache: Path, environment: Mapping[str, str] = os.environ) -> Program:
    """The first perf_analyzer that starts: ``$TRIMTON_PERF_ANALYZER``, PATH, the cache folder.

    Raises InputError where the variable names something else, or none is found.
    """
    if named := environment.get(VARIABLE):
        if program := Program.at(Path(named)):
            return program
        raise InputError(f"${VARIABLE} is {named}, which is no perf_analyzer that starts here.")
    on_path = shutil.which(PROGRAM, path=environment.get("PATH"))
    for path in (Path(on_path) if on_path else None, cached_program(cache)):
        if path is not None and (program := Program.at(path)):
            return program
    raise InputError(
        f"no perf_analyzer is on PATH or in {cached_program(cache).parent}; install it "
        f"(python benchmarks/perf_analyzer_binary.py) or name it in ${VARIABLE}."
    )
