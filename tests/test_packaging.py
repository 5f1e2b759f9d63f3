"""The wheel carries everything that the installed program reads at run time."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("core", "perf", "plugin", "transforms")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in the wheel, built from a copy so that the tree stays clean."""
    source = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(source / "dist")]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (built,) = (source / "dist").glob("trimton-*.whl")
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def test_every_module_is_in_the_wheel(wheel: set[str]) -> None:
    modules = {
        f"trimton/{path.relative_to(ROOT)}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    }

    assert modules <= wheel
    assert len(modules) > 50


@pytest.mark.parametrize(
    "name",
    [
        "plugin/agent/agent.c",
        "plugin/agent/triton_api.h",
        "plugin/backends/onnxruntime/model.py",
        "plugin/recipe.schema.json",
        "plugin/server/requirements.txt",
        "perf/report/report.html.j2",
        "perf/report/report.css",
        *(f"{folder}/py.typed" for folder in FOLDERS),
    ],
)
def test_the_files_that_are_no_modules_are_in_the_wheel(wheel: set[str], name: str) -> None:
    assert f"trimton/{name}" in wheel


def test_the_wheel_carries_the_licence_and_no_tests(wheel: set[str]) -> None:
    assert any(name.endswith("/LICENSE") for name in wheel)
    assert not any("tests" in Path(name).parts for name in wheel)
