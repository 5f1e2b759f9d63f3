"""Proving a version, and the commands around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trimton.core.errors import InfrastructureError, InputError
from trimton.plugin import proof
from trimton.plugin.agent.build import build_agent
from trimton.plugin.cli.main import main
from trimton.plugin.repository import open_repository, path_digest
from trimton.plugin.run_directory import VERDICT_NAME

if TYPE_CHECKING:
    from tests.plugin.agent.conftest import Workshop


def prove(workshop: Workshop, run: Path, name: str = "m", **options: Any) -> proof.Proof:
    model = open_repository(workshop.repository).model(name)
    return proof.prove_version(run, model, 1, proof.read_key(workshop.key_file), **options)


def test_variant_that_passed_is_proven_for_its_terms(workshop: Workshop) -> None:
    version = workshop.model("m")
    made = prove(workshop, workshop.judge("m", version), terms=proof.ProofTerms(valid_days=1))

    assert made.role == "variant"
    assert made.path == workshop.repository / "m" / "1.proof.json"
    model = open_repository(workshop.repository).model("m")
    assert proof.check_model(model) == "allow: proven: version 1"


def test_baseline_can_be_proven_whatever_became_of_the_variant(workshop: Workshop) -> None:
    baseline = workshop.model("m")
    variant = workshop.folder / "variant"
    workshop.write_version(variant, factor=9.0)
    run = workshop.judge("m", variant, outcome="fail", baseline=path_digest(baseline))

    assert prove(workshop, run).role == "baseline"


@pytest.mark.parametrize("outcome", ["fail", "inconclusive"])
def test_variant_that_did_not_pass_is_not_proven(workshop: Workshop, outcome: Any) -> None:
    run = workshop.judge("m", workshop.model("m"), outcome=outcome)

    with pytest.raises(InputError, match=rf"did not pass \({outcome}\)"):
        prove(workshop, run)
    assert not (workshop.repository / "m" / "1.proof.json").exists()


def test_other_bytes_than_those_judged_are_not_proven(workshop: Workshop) -> None:
    run = workshop.judge("m", workshop.model("m"))
    workshop.model("m", factor=2.5)

    with pytest.raises(InputError, match="judged other bytes"):
        prove(workshop, run)


def test_verdict_on_another_model_proves_nothing(workshop: Workshop) -> None:
    run = workshop.judge("n", workshop.model("m"))

    with pytest.raises(InputError, match="is a verdict on n, not on m"):
        prove(workshop, run)


def test_configuration_without_the_agent_is_refused(workshop: Workshop) -> None:
    run = workshop.judge("m", workshop.model("m"))
    config = workshop.repository / "m" / "config.pbtxt"
    config.write_text('backend: "onnxruntime"\n')
    with pytest.raises(InputError, match=r"config\.pbtxt: does not name the agent"):
        prove(workshop, run)

    config.unlink()
    with pytest.raises(InputError, match=r"config\.pbtxt: is missing"):
        prove(workshop, run)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no verdict"), ("{", "is no verdict"), ("{}", "is no verdict")]
)
def test_run_without_a_verdict_is_refused(
    workshop: Workshop, content: str | None, message: str
) -> None:
    run = workshop.judge("m", workshop.model("m"))
    (run / VERDICT_NAME).unlink()
    if content is not None:
        (run / VERDICT_NAME).write_text(content)

    with pytest.raises(InputError, match=rf"verdict\.json: {message}"):
        prove(workshop, run)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (proof.ProofTerms(valid_days=0), "valid for up to 3650 days, not 0"),
        (proof.ProofTerms(valid_days=float("nan")), "valid for up to 3650 days, not nan"),
        (proof.ProofTerms(instruction_sets=["avx9"]), "no instruction set 'avx9'"),
    ],
)
def test_wrong_terms_are_refused(workshop: Workshop, terms: proof.ProofTerms, message: str) -> None:
    run = workshop.judge("m", workshop.model("m"))

    with pytest.raises(InputError, match=message):
        prove(workshop, run, terms=terms)


def test_verdict_that_names_no_processor_is_refused(workshop: Workshop) -> None:
    run = workshop.judge("m", workshop.model("m"), hardware={"cores": 2})

    with pytest.raises(InputError, match="does not say on which processor"):
        prove(workshop, run)


def test_another_policy_has_another_digest(workshop: Workshop) -> None:
    version = workshop.model("m")
    strict = prove(workshop, workshop.judge("m", version, limit=5.0)).policy

    assert prove(workshop, workshop.judge("m", version, limit=5.0)).policy == strict
    assert prove(workshop, workshop.judge("m", version, limit=50.0)).policy != strict


def test_new_key_is_random_its_owners_alone_and_never_replaced(tmp_path: Path) -> None:
    first, second = tmp_path / "keys" / "a", tmp_path / "keys" / "b"
    assert proof.new_key(first) != proof.new_key(second)
    assert first.stat().st_mode & 0o777 == 0o600
    before = first.read_bytes()

    with pytest.raises(InputError, match="exists"):
        proof.new_key(first)
    assert first.read_bytes() == before


# --- commands ------------------------------------------------------------------------------------


def run_command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


def test_commands_lead_from_a_key_to_a_checked_model(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    version = workshop.model("m")
    run = workshop.judge("m", version)
    key = workshop.folder / "own.key"
    code, out, _ = run_command(capsys, "agent", "new-key", key, "--json")
    key_id = json.loads(out)["key_id"]
    assert code == 0

    where = (workshop.repository, "m")
    code, out, _ = run_command(
        capsys, "agent", "prove", run, *where, 1, "--key-file", key, "--json"
    )
    made = json.loads(out)
    assert (code, made["key_id"], made["version"], made["role"]) == (0, key_id, 1, "variant")

    code, out, _ = run_command(capsys, "agent", "check", *where, "--key-file", key, "--json")
    expected = {"model": "m", "proven": True, "answer": "allow: proven: version 1"}
    assert (code, json.loads(out)) == (0, {"models": [expected]})

    code, out, _ = run_command(capsys, "agent", "check", *where)  # the model's own key
    assert code == 1
    assert "is not signed with the key" in out
    assert out.count("\n") == 1


def test_check_of_a_repository_names_every_model_that_bypasses_the_agent(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    workshop.model("proven")
    workshop.prove("proven")
    workshop.model("bare")
    (workshop.repository / "bare" / "config.pbtxt").unlink()
    workshop.model("silent")
    (workshop.repository / "silent" / "config.pbtxt").write_text('backend: "onnxruntime"\n')

    code, out, _ = run_command(capsys, "agent", "check", workshop.repository, "--json")

    answers = {one["model"]: one for one in json.loads(out)["models"]}
    assert code == 1
    assert answers["proven"]["proven"]
    assert not answers["bare"]["proven"]
    assert not answers["silent"]["proven"]
    assert "config.pbtxt: is missing, so a server loads" in answers["bare"]["answer"]
    assert "config.pbtxt: does not name the agent" in answers["silent"]["answer"]


def test_proving_a_missing_version_is_one_sentence(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    run = workshop.judge("m", workshop.model("m"))

    code, out, error = run_command(
        capsys,
        *("agent", "prove", run, workshop.repository, "m", 7, "--key-file", workshop.key_file),
    )

    assert (code, out) == (2, "")
    assert "has no version 7" in error
    assert error.count("\n") == 1


def test_build_command_says_what_to_start_the_server_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run_command(capsys, "agent", "build", "--into", tmp_path / "agents", "--json")
    made = json.loads(out)

    assert code == 0
    assert made["repoagent_directory"] == str(tmp_path / "agents")
    assert Path(made["library"]).is_file()
    assert (tmp_path / "agents" / "trimton" / "check.py").is_file()


def test_build_without_a_compiler_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(InputError, match="no C compiler 'no-such-compiler'; install one"):
        build_agent(tmp_path)
    assert not list(tmp_path.iterdir())


def test_build_that_fails_leaves_the_agent_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = build_agent(tmp_path)
    before = library.read_bytes()
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'x.c:1: error: no good' >&2; exit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))

    with pytest.raises(InfrastructureError, match=r"does not compile the agent: x\.c:1: error"):
        build_agent(tmp_path)
    assert library.read_bytes() == before
