"""Installing the server: whole or absent, whatever happens."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from trimton.core.errors import InfrastructureError, InputError
from trimton.plugin.server.install import check_machine, install, reason_of
from trimton.plugin.server.installation import (
    RECORD,
    Installation,
    find_installation,
    home,
    read_installation,
    require_installation,
    server_folder,
)
from trimton.plugin.server.interpreter import Interpreter, fetch_library, find_interpreter

INSTALL = """
from trimton.plugin.server.install import install
install(notify=lambda step: print(step, flush=True))
"""


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which nothing is installed."""
    monkeypatch.setenv("TRIMTON_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.server
def test_killed_installation_leaves_nothing_and_the_next_one_succeeds(empty_home: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INSTALL], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        steps = iter(process.stdout)
        assert next(step for step in steps if step.startswith("downloading"))
        process.kill()
    assert find_installation() is None
    assert not server_folder().exists()
    remains = [p for p in empty_home.iterdir() if p.is_dir()]
    assert remains, "the kill came before anything was written"

    result = install()

    assert result.changed
    assert result.installation == require_installation()
    assert result.installation.defect() is None
    assert not any(p.exists() for p in remains)
    assert (
        next(result.installation.folder.rglob("nvidia_pytriton-*.dist-info")) / "licenses"
    ).is_dir()
    assert not install().changed


@pytest.mark.server
def test_installed_server_is_left_alone(installation: Installation) -> None:
    again = install()
    assert not again.changed
    assert again.installation == installation


@pytest.mark.server
def test_damaged_installation_is_refused_with_the_reason(
    installation: Installation, empty_home: Path
) -> None:
    folder = empty_home / "server"
    folder.mkdir(parents=True)
    dataclasses.replace(installation, folder=folder).write_record()
    (folder / "bin").symlink_to(installation.folder / "bin")
    copied = read_installation(folder)
    assert copied is not None
    assert "is missing" in str(copied.defect())
    assert find_installation() is None
    with pytest.raises(InputError, match=r"cannot be used, because .* is missing"):
        require_installation()


@pytest.mark.server
def test_installation_of_other_requirements_is_out_of_date(installation: Installation) -> None:
    assert installation.defect() is None
    other = dataclasses.replace(installation, requirements="0" * 64)
    assert other.defect() == "it was made by another version of Trimton"


def test_unreadable_record_is_an_error_that_says_what_to_do(empty_home: Path) -> None:
    (empty_home / "server").mkdir(parents=True)
    (empty_home / "server" / RECORD).write_text(json.dumps({"surprise": 1}))
    with pytest.raises(InfrastructureError, match="trimton server install --force"):
        find_installation()


def test_unreachable_index_is_one_sentence_and_leaves_nothing(
    empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(InfrastructureError, match="pip cannot reach its package index") as caught:
        install()
    assert "\n" not in str(caught.value)
    assert [p.name for p in empty_home.iterdir()] == ["server.lock"]


def test_home_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRIMTON_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match="file: cannot be written"):
        install()


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("ERROR: Exception:\n...\nOSError: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: Could not find a version (from versions: none)\nERROR: no", "pip cannot reach"),
        ("WARNING: old\nERROR: something else is wrong\n", "something else is wrong"),
    ],
)
def test_failure_of_pip_in_a_few_words(output: str, reason: str) -> None:
    assert reason_of(output).startswith(reason)


@pytest.mark.parametrize(
    ("machine", "libc", "message"),
    [
        ("aarch64", ("glibc", "2.36"), "Linux on aarch64"),
        ("x86_64", ("glibc", "2.31"), r"needs glibc 2\.35 or newer, but this is 2\.31"),
        ("x86_64", ("", ""), "needs glibc, which this Linux lacks"),
    ],
)
def test_machine_that_cannot_run_the_server_is_told_so(
    machine: str, libc: tuple[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    with pytest.raises(InfrastructureError, match=message):
        check_machine()


def test_home_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIMTON_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home() == tmp_path / "trimton"
    monkeypatch.setenv("TRIMTON_HOME", str(tmp_path / "own"))
    assert home() == tmp_path / "own"


def test_interpreter_is_the_running_one_where_it_is_supported() -> None:
    assert find_interpreter().version == ".".join(map(str, sys.version_info[:2]))


def test_python_without_shared_library_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get here
    static = Interpreter("/opt/python3.11", "3.11", None)
    with pytest.raises(
        InfrastructureError, match=r"no shared libpython3\.11\.so\.1\.0.*apt-get install"
    ):
        fetch_library(static, tmp_path)
