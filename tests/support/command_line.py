"""The program as a user starts it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest

from trimton.plugin.cli.main import main


def trimton(*arguments: object, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """What ``trimton ARGUMENTS`` printed, and its exit code."""
    command = [sys.executable, "-m", "trimton.plugin.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)


@dataclass(frozen=True)
class Program:
    """The program in this process, which is faster; ``capsys`` reads what it prints."""

    capsys: pytest.CaptureFixture[str]
    command: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        with pytest.raises(SystemExit) as ended:
            main([*self.command, *map(str, arguments), *self.options])
        printed = self.capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err
