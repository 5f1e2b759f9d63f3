"""A finished stage is kept; changed inputs or lost files repeat it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trimton.plugin.stages import Json, StageStore, digest_of


def test_a_finished_stage_is_not_repeated(tmp_path: Path) -> None:
    calls: list[int] = []

    def work() -> Json:
        calls.append(1)
        return {"value": len(calls)}

    first = StageStore(tmp_path).run("a", {"x": 1}, work)
    again = StageStore(tmp_path).run("a", {"x": 1}, work)
    other = StageStore(tmp_path).run("a", {"x": 2}, work)

    assert first == again == {"value": 1}
    assert other == {"value": 2}


def test_a_stage_that_fails_leaves_no_result(tmp_path: Path) -> None:
    def fail() -> Json:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        StageStore(tmp_path).run("a", {}, fail)

    assert StageStore(tmp_path).run("a", {}, lambda: {"ok": True}) == {"ok": True}


def test_a_result_whose_files_are_gone_is_made_again(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    store.run("a", {}, lambda: {"n": 1})

    assert store.run("a", {}, lambda: {"n": 2}, still_valid=lambda r: False) == {"n": 2}


def test_half_a_result_file_counts_as_none(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    store.run("a", {}, lambda: {"n": 1})
    path = tmp_path / "stages" / "a.json"
    path.write_text(path.read_text()[:-8])

    assert store.run("a", {}, lambda: {"n": 2}) == {"n": 2}


def test_the_journal_tells_what_was_done_and_what_was_kept(tmp_path: Path) -> None:
    StageStore(tmp_path).run("a", {}, dict)
    StageStore(tmp_path).run("a", {}, dict)

    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["started", "finished", "kept"]


def test_digests_do_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
