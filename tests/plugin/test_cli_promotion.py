"""``trimton promote``, ``rollback`` and ``repository`` on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from trimton.core.errors import TrimtonError
from trimton.perf.verdict import VariantVerdict, Verdict
from trimton.plugin.cli.main import build_app
from trimton.plugin.repository import Repository, path_digest

TRIMTON = (sys.executable, "-m", "trimton.plugin.cli.main")
CREATED = "2026-01-01T00:00:00+00:00"


def write_model(folder: Path, factor: float) -> None:
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("x", "y")
    ]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "scaling",
        tensors[:1],
        tensors[1:],
        [onnx.numpy_helper.from_array(np.float32(factor), "factor")],
    )
    folder.mkdir(parents=True)
    onnx.save(helper.make_model(graph, ir_version=8), folder / "model.onnx")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository with one model, for which ``tmp_path / "run"`` has a variant that passed."""
    write_model(tmp_path / "models" / "net" / "1", 2.0)
    (tmp_path / "models" / "net" / "config.pbtxt").write_text('backend: "onnxruntime"\n')
    write_model(tmp_path / "run" / "variants" / "small", 3.0)
    digest = path_digest(tmp_path / "run" / "variants" / "small")
    verdict = Verdict(
        model="net",
        outcome="pass",
        candidate="small",
        baseline_digest=path_digest(tmp_path / "models" / "net" / "1"),
        candidate_digest=digest,
        created=CREATED,
        environment={},
        settings={"model": {"repository": str(tmp_path / "models")}, "policy": {}},
        variants=(VariantVerdict(variant="small", digest=digest, outcome="pass", checks=()),),
    )
    (tmp_path / "run" / "verdict.json").write_text(verdict.model_dump_json())
    return tmp_path / "models"


def run(*arguments: object) -> None:
    build_app()(args=[str(a) for a in arguments], standalone_mode=False)


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_there_and_back_with_the_repository_of_the_run(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("promote", tmp_path / "run", "--max-age-days", 10**6, "--json")
    there = printed(capsys)
    run("rollback", models, "net", "--reason", "a test", "--json")
    back = printed(capsys)

    assert (there["version"], there["before"], there["after"], there["changed"]) == (
        2,
        [1],
        [2],
        True,
    )
    assert (back["before"], back["after"], back["changed"]) == ([2], [1], True)


def test_the_repository_command_tells_who_serves_on_which_verdict(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("promote", tmp_path / "run", "--max-age-days", 10**6, "--json")
    capsys.readouterr()

    run("repository", models, "--history")
    shown = capsys.readouterr().out
    run("repository", models, "--digests", "--json")
    (facts,) = printed(capsys)["models"]

    assert shown.startswith("net: serves 2 of 1, 2, since 20")
    assert f"(promote, pass of {tmp_path / 'run'})" in shown
    assert facts["served"] == [2]
    assert facts["digests"]["2"] == path_digest(models / "net" / "2")
    assert set(facts["digests"]) == {"config.pbtxt", "1", "2"}
    assert [change["action"] for change in facts["changes"]] == ["pin", "promote"]


def test_models_that_no_server_would_load_are_named(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (models / "empty").mkdir()
    (models / "empty" / "config.pbtxt").write_text("")
    (tmp_path / "more" / "net" / "1").mkdir(parents=True)

    code = build_app()(
        args=["repository", str(models), str(tmp_path / "more"), "--json"], standalone_mode=False
    )

    problems = {(m["model"], m["problem"]) for m in printed(capsys)["models"]}
    assert code == 1
    assert ("net", "is in several repositories: a server loads neither") in problems
    assert any(model == "empty" and "has no version" in why for model, why in problems)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["promote", "run"], 1, "days old and counts for 30"),
        (["promote", "nowhere"], 2, "give the directory of a finished run"),
        (["promote", "run", "--force", " "], 2, "needs a reason"),
        (["promote", "run", "--server", "ftp://x"], 2, "is no server address"),
        (["rollback", "models", "net"], 2, "name a version with --to"),
        (["rollback", "models", "../net"], 2, "is not allowed"),
        (["rollback", "nowhere", "net"], 2, "is in no repository"),
        (["repository", "models", "--model", "x"], 2, "has no model 'x'"),
    ],
)
def test_what_is_refused_is_one_sentence_with_its_exit_code(
    models: Path, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    before = {p: p.read_bytes() for p in models.rglob("*") if p.is_file()}

    with pytest.raises(TrimtonError) as error:
        run(*[tmp_path / a if a in ("run", "models", "nowhere") else a for a in arguments])

    assert error.value.exit_code == code
    assert words in str(error.value)
    assert str(error.value).endswith((".", "reason."))
    after = {p: p.read_bytes() for p in models.rglob("*") if p.is_file()}
    assert {p: b for p, b in after.items() if p.suffix != ".lock"} == before


def test_a_program_that_is_refused_prints_one_line_and_no_traceback(
    models: Path, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [*TRIMTON, "promote", str(tmp_path / "run")], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert Repository(models).model("net").versions == (1,)
