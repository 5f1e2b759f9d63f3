"""A Triton repository is read through protobuf; what is wrong in it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimton.core.errors import InputError
from trimton.plugin.ensembles import LATEST, memberships
from trimton.plugin.repository import (
    config_from_json,
    open_repository,
    path_digest,
    read_config,
    write_config,
)

CONFIG = 'backend: "onnxruntime"\nmax_batch_size: 8\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for version in ("1", "10", "2"):
        folder = tmp_path / "repository" / "net" / version
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"onnx " + version.encode())
    (tmp_path / "repository" / "net" / "config.pbtxt").write_text(CONFIG)
    (tmp_path / "repository" / "net" / "notes").mkdir()
    (tmp_path / "repository" / "empty").mkdir()
    return tmp_path / "repository"


def test_versions_are_numbers_and_the_latest_is_the_default(root: Path) -> None:
    model = open_repository(root).model("net")

    assert model.versions == (1, 2, 10)
    assert model.model_file().read_bytes() == b"onnx 10"
    assert model.model_file(2).read_bytes() == b"onnx 2"
    assert model.config is not None
    assert model.config.max_batch_size == 8


def test_folders_that_are_no_models_are_not_listed(root: Path) -> None:
    assert open_repository(root).names() == ("net",)
    assert [model.name for model in open_repository(root).models()] == ["net"]


def test_the_default_model_filename_is_honoured(root: Path) -> None:
    (root / "net" / "config.pbtxt").write_text(CONFIG + 'default_model_filename: "small.onnx"\n')
    (root / "net" / "1" / "small.onnx").write_bytes(b"small")

    model = open_repository(root).model("net")

    assert model.model_file(1).read_bytes() == b"small"
    with pytest.raises(InputError, match=r"2/small\.onnx: no such file"):
        model.model_file(2)


@pytest.mark.parametrize("name", ["../net", "/net", "net/1", "..", ".", "", ".hidden", "a\\b"])
def test_names_that_leave_the_repository_are_refused(root: Path, name: str) -> None:
    with pytest.raises(InputError, match="is not allowed"):
        open_repository(root).model(name)


def test_a_link_out_of_the_repository_is_refused(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "1"
    outside.mkdir(parents=True)
    (root / "link").symlink_to(outside.parent)

    with pytest.raises(InputError, match="link out of the repository"):
        open_repository(root).model("link")


def test_unknown_models_and_versions_are_refused_with_what_there_is(root: Path) -> None:
    repository = open_repository(root)

    with pytest.raises(InputError, match=r"no model 'nat' \(models: net\)"):
        repository.model("nat")
    with pytest.raises(InputError, match=r"no version 3 \(versions: 1, 2, 10\)"):
        repository.model("net").model_file(3)
    with pytest.raises(InputError, match="has no version"):
        repository.model("empty")


def test_what_is_no_repository_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "bare").mkdir()

    for name, words in (("none", "no such"), ("file", "is a file"), ("bare", "holds no models")):
        with pytest.raises(InputError, match=words):
            open_repository(tmp_path / name)


def test_a_wrong_config_is_refused_with_its_line(root: Path) -> None:
    path = root / "net" / "config.pbtxt"
    path.write_text(CONFIG + "max_batch: 3\n")

    with pytest.raises(InputError, match=r"config\.pbtxt: line 3, column 1: .*max_batch"):
        read_config(path)

    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        read_config(path)


def test_a_written_config_reads_back_the_same(root: Path, tmp_path: Path) -> None:
    config = config_from_json(
        {"name": "net", "max_batch_size": 4, "backend": "onnxruntime", "unknown_field": 1}
    )

    write_config(tmp_path / "config.pbtxt", config)

    assert read_config(tmp_path / "config.pbtxt") == config


def test_a_digest_depends_on_names_and_bytes_only(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(b"1")
    same = path_digest(tmp_path / "a") == path_digest(tmp_path / "b")
    (tmp_path / "b" / "model.onnx").rename(tmp_path / "b" / "other.onnx")

    assert same
    assert path_digest(tmp_path / "a") != path_digest(tmp_path / "b")
    assert path_digest(tmp_path / "a" / "model.onnx").startswith("sha256:6b86b273")


def test_a_number_with_a_leading_zero_is_no_version(root: Path) -> None:
    (root / "net" / "03").mkdir()

    assert open_repository(root).model("net").versions == (1, 2, 10)


def test_an_ensemble_names_its_models_where_a_file_is_wanted(root: Path) -> None:
    (root / "net" / "config.pbtxt").write_text(
        'ensemble_scheduling { step { model_name: "a" } step { model_name: "b" } '
        'step { model_name: "a" } }\n'
    )

    with pytest.raises(InputError, match=r"is an ensemble.*\(a, b\)"):
        open_repository(root).model("net").model_file()


def test_memberships_tell_which_version_an_ensemble_insists_on(root: Path) -> None:
    (root / "pipe" / "1").mkdir(parents=True)
    (root / "pipe" / "config.pbtxt").write_text(
        'ensemble_scheduling { step { model_name: "net" model_version: 2 } '
        'step { model_name: "net" model_version: -1 } step { model_name: "other" } }\n'
    )

    found = memberships(open_repository(root), "net")

    assert [(m.ensemble, m.version) for m in found] == [("pipe", LATEST), ("pipe", 2)]


def test_a_digest_can_count_a_file_by_another_name(tmp_path: Path) -> None:
    for folder, name in (("a", "model.onnx"), ("b", "net.onnx")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(b"1")

    digest = path_digest(tmp_path / "b", {"net.onnx": "model.onnx"})
    assert digest == path_digest(tmp_path / "a")
