"""An environment with Ray beside the one in use, in the user's cache; made once.

Ray is an extra that most installations do without. It is installed into a virtual environment of
its own that sees the packages of the running one, so that both have the same Trimton.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

REQUIREMENT = "ray>=2.40,<3"
_DONE = "complete"


def python_with_ray() -> Path:
    """The interpreter of that environment; CalledProcessError where pip cannot install Ray."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "trimton" / f"ray-{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / "bin" / "python"
    if not (folder / _DONE).exists():
        venv.create(folder, clear=True, with_pip=True)
        _see_the_running_environment(folder)
        subprocess.run([python, "-m", "pip", "install", "--quiet", REQUIREMENT], check=True)
        (folder / _DONE).touch()
    _see_the_running_environment(folder)
    return python


def _see_the_running_environment(folder: Path) -> None:
    """Unlike a plain path, addsitedir follows the links of editable installs."""
    packages = sysconfig.get_path("purelib", "venv", {"base": str(folder)})
    line = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (Path(packages) / "running_environment.pth").write_text(line)
