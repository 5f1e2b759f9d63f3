"""The journal: what stands, what was taken back, and what a kill or a stranger left in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trimton.core.errors import InfrastructureError, InputError
from trimton.plugin.promotion.journal import Action, Change, Journal
from trimton.plugin.promotion.lock import model_lock


def commit(
    journal: Journal, action: Action, before: tuple[int, ...], after: tuple[int, ...], **more: str
) -> Change:
    change = journal.begin("net", action, before, after, **more)
    journal.note(change, "committed")
    return change


def test_a_rollback_after_a_canary_goes_back_to_before_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    commit(journal, "promote", (1,), (2,))
    commit(journal, "canary", (2,), (2, 3))
    commit(journal, "promote", (2, 3), (3,))

    assert journal.history("net").served_before == (2,)


def test_what_was_undone_does_not_stand(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    commit(journal, "promote", (1,), (2,))
    bad = commit(journal, "promote", (2,), (3,))
    back = commit(journal, "undo", (3,), (2,), undoes=bad.id)

    history = journal.history("net")

    assert history.served_before == (1,)
    assert [(c.id, by.id) for c, by in history.withdrawn] == [(bad.id, back.id)]


def test_an_undone_rollback_leaves_things_as_they_were(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    commit(journal, "promote", (1,), (2,))
    back = commit(journal, "rollback", (2,), (1,))
    commit(journal, "undo", (1,), (2,), undoes=back.id)

    assert journal.history("net").served_before == (1,)


@pytest.mark.parametrize(("served", "phase"), [((2,), "committed"), ((1,), "abandoned")])
def test_what_a_kill_left_open_is_decided_by_what_serves(
    tmp_path: Path, served: tuple[int, ...], phase: str
) -> None:
    journal = Journal(tmp_path)
    journal.begin("net", "promote", (1,), (2,))

    journal.settle("net", served)

    assert journal.changes("net")[0].phase == phase


def test_models_do_not_mix(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    commit(journal, "promote", (1,), (2,))

    assert journal.changes("other") == []
    assert journal.history("other").served_before is None


def test_cut_and_strange_lines_are_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    commit(journal, "promote", (1,), (2,))
    with journal.path.open("ab") as file:
        file.write(b'[1]\n{"model": "net", "id": "x", "before": "no"}\n\xff\xfe\n{"model": "ne')

    change = commit(journal, "promote", (2,), (3,))

    assert journal.changes("net")[-1].id == change.id
    assert journal.history("net").served_before == (2,)
    assert json.loads(journal.path.read_text(errors="replace").splitlines()[-1])["id"] == change.id


def test_a_journal_that_is_a_link_is_not_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    (tmp_path / "elsewhere").write_text("")
    journal.path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(InputError, match="cannot be written"):
        journal.begin("net", "promote", (1,), (2,))

    assert (tmp_path / "elsewhere").read_text() == ""


def test_a_lock_is_held_by_one_and_names_its_holder(tmp_path: Path) -> None:
    with (
        model_lock(tmp_path, "net"),
        model_lock(tmp_path, "other"),
        pytest.raises(InfrastructureError, match=r"\.net\.lock: is held by .* \(process \d+\)"),
        model_lock(tmp_path, "net", timeout_s=0.1),
    ):
        pass
    with model_lock(tmp_path, "net", timeout_s=0.1):
        pass
