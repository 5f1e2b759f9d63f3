"""Windows come back as they were written; an interrupted round and half a line do not."""

from __future__ import annotations

from pathlib import Path

from windows import window

from trimton.plugin.windows_file import WindowsFile


def test_windows_come_back_as_they_were(tmp_path: Path) -> None:
    file = WindowsFile(tmp_path / "windows" / "a.jsonl")
    written = [window("a", 0), window("b", 0)]
    for one in written:
        file.append(one)

    assert list(file.read()) == written
    assert WindowsFile(tmp_path / "none.jsonl").read() == ()


def test_half_a_line_is_left_out_and_overwritten(tmp_path: Path) -> None:
    file = WindowsFile(tmp_path / "a.jsonl")
    file.append(window("a", 0))
    with file.path.open("a") as stream:
        stream.write('{"variant": "b", "conc')

    assert len(file.read()) == 1
    assert len(file.keep_complete_rounds(1)) == 1
    file.append(window("a", 1))
    assert [one.round for one in file.read()] == [0, 1]


def test_an_interrupted_round_is_taken_away(tmp_path: Path) -> None:
    file = WindowsFile(tmp_path / "a.jsonl")
    for variant, round_index in (("a", 0), ("b", 0), ("b", 1)):
        file.append(window(variant, round_index))

    kept = file.keep_complete_rounds(2)

    assert [(one.variant, one.round) for one in kept] == [("a", 0), ("b", 0)]
    assert file.read() == kept
