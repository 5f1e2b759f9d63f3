"""The program as a user starts it."""

from __future__ import annotations

import subprocess
import sys


def trimton(*arguments: object, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """What ``trimton ARGUMENTS`` printed, and its exit code."""
    command = [sys.executable, "-m", "trimton.plugin.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
