"""A file or folder is replaced as a whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from trimton.core.errors import InfrastructureError, InputError
from trimton.core.files import (
    append_line,
    copy_folder,
    replacing,
    replacing_folder,
    write_bytes,
    write_error,
    write_text,
)


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "grüße")
    write_bytes(tmp_path / "a" / "c.bin", b"\0")

    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "grüße"
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["b.txt", "c.bin"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()

    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "models"
    for content in ("one", "two"):
        with replacing_folder(target) as folder:
            (folder / content).write_text(content)

    def interrupted() -> None:
        with replacing_folder(target) as folder:
            (folder / "three").write_text("three")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()

    assert [p.name for p in target.iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["models"]


def test_new_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(old)

    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / "file" / "below.txt", "y")


def test_a_full_disk_is_the_infrastructures_fault() -> None:
    error = write_error(Path("/x/model.onnx"), OSError(errno.ENOSPC, "No space left on device"))

    assert isinstance(error, InfrastructureError)
    assert str(error) == "/x/model.onnx: cannot be written, the disk is full; free some space."


def test_lines_are_appended_and_folders_copied_into_others(tmp_path: Path) -> None:
    append_line(tmp_path / "a" / "log", "one")
    append_line(tmp_path / "a" / "log", "two")
    (tmp_path / "b").mkdir()
    copy_folder(tmp_path / "a", tmp_path / "b")

    assert (tmp_path / "b" / "log").read_text() == "one\ntwo\n"


def test_a_copy_or_a_line_that_cannot_be_written_names_the_file(tmp_path: Path) -> None:
    append_line(tmp_path / "a" / "log", "one")
    (tmp_path / "b" / "log").mkdir(parents=True)

    with pytest.raises(InputError, match="b/log: cannot be written"):
        copy_folder(tmp_path / "a", tmp_path / "b")
    with pytest.raises(InputError, match="b/log: cannot be written"):
        append_line(tmp_path / "b" / "log", "one")
