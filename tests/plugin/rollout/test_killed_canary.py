"""What a killed canary left behind is put right by the next promotion."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimton.plugin.promotion.journal import Journal
from trimton.plugin.promotion.versions import set_served_versions
from trimton.plugin.repository import Repository, RepositoryModel
from trimton.plugin.rollout.trial import end_killed_canary
from trimton.plugin.version_policy import served_versions

CONFIG = 'backend: "onnxruntime"\nversion_policy { specific { versions: [ 1 ] } }\n'


@pytest.fixture
def model(tmp_path: Path) -> RepositoryModel:
    """Version 1 serves; 2 is a canary; 3 is the copy of 1 on top of it."""
    for version, content in {1: b"old", 2: b"new", 3: b"old"}.items():
        folder = tmp_path / "net" / str(version)
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(content)
    (tmp_path / "net" / "config.pbtxt").write_text(CONFIG)
    (tmp_path / "net" / "3.0123456789abcdef.proof.json").write_text("{}")
    return Repository(tmp_path).model("net")


def end(model: RepositoryModel) -> RepositoryModel:
    journal = Journal(model.folder.parent)
    journal.settle("net", served_versions(model.config, model.versions))
    return end_killed_canary(journal, model)


@pytest.mark.parametrize("is_committed", [False, True])
def test_the_old_version_serves_alone_and_its_copy_is_gone(
    model: RepositoryModel, is_committed: bool
) -> None:
    journal = Journal(model.folder.parent)
    journal.begin("net", "canary", (1,), (1, 2, 3), version=2, copy=3)
    if is_committed:
        model = set_served_versions(model, (1, 2, 3))

    model = end(model)

    assert served_versions(model.config, model.versions) == (1,)
    assert model.versions == (1, 2)
    assert not list(model.folder.glob("3*"))
    assert end(model) == model  # and nothing is done twice
    # It was not stopped for what it did, so the same run may be tried again.
    withdrawn = journal.history("net").withdrawn
    assert all(by.details["may_be_repeated"] for _, by in withdrawn)
    assert len(withdrawn) == int(is_committed)


def test_a_version_that_later_took_the_number_of_the_copy_stays(model: RepositoryModel) -> None:
    journal = Journal(model.folder.parent)
    canary = journal.begin("net", "canary", (1,), (1, 2, 3), version=2, copy=3)
    journal.note(canary, "committed")
    journal.note(journal.begin("net", "promote", (1,), (2,), version=2), "committed")

    assert end(set_served_versions(model, (2,))).versions == (1, 2, 3)
