"""The check by itself, without a server: times, processors, links, keys, configurations."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimton.perf.hardware import INSTRUCTION_SETS, describe
from trimton.plugin.agent import check
from trimton.plugin.agent.check import UnprovenError, same_config, served_versions
from trimton.plugin.proof import ProofTerms, config_json, read_key
from trimton.plugin.repository import open_repository

if TYPE_CHECKING:
    from tests.plugin.agent.conftest import Workshop

ABSENT = next(name for name in INSTRUCTION_SETS if name not in describe().instruction_sets)


def answer(workshop: Workshop, name: str = "m", policy: str = "") -> str:
    """What the check says about a model as it lies there."""
    model = open_repository(workshop.repository).model(name)
    config = config_json(model.config)
    return check.check_model(str(model.folder), config, str(workshop.key_file), policy)[1]


def rewrite(workshop: Workshop, proof: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a proof's statement and sign it again with the right key."""
    statement = json.loads(base64.b64decode(json.loads(proof.read_text())["payload"]))
    change(statement)
    proof.write_text(check.seal(statement, read_key(workshop.key_file)))


def test_proven_model_passes_with_the_policy_it_was_judged_by(workshop: Workshop) -> None:
    workshop.model("m")
    proof = workshop.prove("m")

    assert answer(workshop, policy=proof.policy) == "proven: version 1"
    with pytest.raises(UnprovenError, match="is of the policy"):
        answer(workshop, policy="0" * 64)


def test_every_version_that_would_be_served_needs_a_proof(workshop: Workshop) -> None:
    workshop.model("m", version=1, extra="version_policy { all {} }\n")
    workshop.model("m", version=2, extra="version_policy { all {} }\n")
    workshop.prove("m", version=2)

    with pytest.raises(UnprovenError, match=r"no proof .*m/1\.proof\.json"):
        answer(workshop)

    workshop.prove("m", version=1)
    assert answer(workshop) == "proven: version 1, 2"


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ({}, ["10"]),
        ({"latest": {}}, ["10"]),
        ({"latest": {"num_versions": 2}}, ["9", "10"]),
        ({"all": {}}, ["1", "9", "10"]),
        ({"specific": {"versions": [9, "1", 4]}}, ["1", "9"]),
    ],
)
def test_version_policy_is_read_as_the_server_reads_it(
    tmp_path: Path, policy: dict[str, Any], served: list[str]
) -> None:
    for name in ("1", "9", "10", "notes"):
        (tmp_path / name).mkdir()

    assert served_versions(str(tmp_path), {"version_policy": policy}) == served


def test_redirect_into_the_models_folder_needs_the_proof_there(workshop: Workshop) -> None:
    workshop.model("m", redirect="variants/small")
    model = open_repository(workshop.repository).model("m")
    variant = model.folder / "variants" / "small"
    workshop.write_version(variant / "1", factor=3.0)
    arguments = (str(model.folder), config_json(model.config), str(workshop.key_file), "")

    with pytest.raises(UnprovenError, match=r"no proof .*m/variants/small/1\.proof\.json"):
        check.check_model(*arguments, "variants/small")

    workshop.prove("m", folder=variant)
    assert check.check_model(*arguments, "variants/small") == ("redirect", str(variant))


@pytest.mark.parametrize(
    ("redirect", "reason"),
    [
        ("../n", "leads out of the model"),
        ("variants/../../n", "leads out of the model"),
        ("/models\nallow", "is no name of a folder"),
    ],
)
def test_hostile_redirect_is_refused(workshop: Workshop, redirect: str, reason: str) -> None:
    workshop.model("m")
    workshop.model("n")
    workshop.prove("n")
    with pytest.raises(UnprovenError, match=reason):
        check.check_model(
            str(workshop.repository / "m"), {}, str(workshop.key_file), redirect=redirect
        )


def test_model_without_a_version_to_serve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnprovenError, match="holds no version"):
        served_versions(str(tmp_path), {})


def test_proof_of_another_model_with_the_same_bytes_is_refused(workshop: Workshop) -> None:
    workshop.model("m")
    workshop.model("n")
    shutil.copy(workshop.prove("n").path, workshop.repository / "m" / "1.proof.json")

    with pytest.raises(UnprovenError, match="is for version 1 of n, not for version 1 of m"):
        answer(workshop)


def test_proof_of_another_version_with_the_same_bytes_is_refused(workshop: Workshop) -> None:
    workshop.model("m")
    old = workshop.prove("m").path
    workshop.model("m", version=2)
    shutil.copy(old, old.with_name("2.proof.json"))

    with pytest.raises(UnprovenError, match="is for version 1 of m, not for version 2 of m"):
        answer(workshop)


def test_proof_of_another_key_is_refused(workshop: Workshop) -> None:
    workshop.model("m")
    workshop.prove("m")
    workshop.key_file.write_text("00" * 32)

    with pytest.raises(UnprovenError, match="is not signed with the key hmac-sha256:"):
        answer(workshop)


def test_proof_of_the_future_is_refused(workshop: Workshop) -> None:
    workshop.model("m")
    path = workshop.prove("m").path
    rewrite(workshop, path, lambda s: s["predicate"].update(created="2999-01-01T00:00:00+00:00"))

    with pytest.raises(UnprovenError, match="set this host's clock"):
        answer(workshop)


def test_statement_of_another_kind_is_refused(workshop: Workshop) -> None:
    workshop.model("m")
    path = workshop.prove("m").path
    rewrite(workshop, path, lambda s: s.update(predicateType="urn:trimton:proof:v2"))

    with pytest.raises(UnprovenError, match="another kind: urn:trimton:proof:v2"):
        answer(workshop)


def test_processor_without_what_was_measured_is_refused(workshop: Workshop) -> None:
    workshop.model("m")
    workshop.prove("m", terms=ProofTerms(instruction_sets=[ABSENT]))

    with pytest.raises(UnprovenError, match=f"is for processors with {ABSENT}"):
        answer(workshop)


def test_other_architecture_is_refused(workshop: Workshop) -> None:
    workshop.model("m")
    path = workshop.prove("m").path
    processor = {"architecture": "riscv64", "instruction_sets": []}
    rewrite(workshop, path, lambda s: s["predicate"].update(processor=processor))

    with pytest.raises(UnprovenError, match="is for riscv64; this host is"):
        answer(workshop)


def test_pipe_in_a_version_is_refused_without_waiting_for_it(workshop: Workshop) -> None:
    version = workshop.model("m")
    workshop.prove("m")
    os.mkfifo(version / "pipe")

    with pytest.raises(UnprovenError, match="pipe is no plain file"):
        answer(workshop)


def test_file_in_a_subfolder_of_the_version_counts(workshop: Workshop) -> None:
    version = workshop.model("m")
    (version / "data").mkdir()
    (version / "data" / "weights.bin").write_bytes(b"1")
    workshop.prove("m")
    assert answer(workshop)

    (version / "data" / "weights.bin").write_bytes(b"2")
    with pytest.raises(UnprovenError, match=r"1/data/weights\.bin has changed"):
        answer(workshop)


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b"\xff\xfe", b"[" * 200_000, b'{"payload": "*", "signatures": []}'],
    ids=["empty", "list", "object", "no UTF-8", "deep", "no base64"],
)
def test_broken_proof_is_refused(workshop: Workshop, text: bytes) -> None:
    workshop.model("m")
    workshop.prove("m").path.write_bytes(text)

    with pytest.raises(UnprovenError, match=r"1\.proof\.json is no proof"):
        answer(workshop)


def test_huge_proof_is_refused_unread(workshop: Workshop) -> None:
    workshop.model("m")
    os.truncate(workshop.prove("m").path, 1 << 34)  # sparse

    with pytest.raises(UnprovenError, match="is over 16777216 bytes"):
        answer(workshop)


def test_key_that_every_user_can_read_is_refused(workshop: Workshop) -> None:
    workshop.model("m")
    workshop.prove("m")
    workshop.key_file.chmod(0o644)

    with pytest.raises(UnprovenError, match="is open to every user of this host"):
        answer(workshop)


@pytest.mark.parametrize("text", ["", "zz" * 32, "ab" * 31, "ab" * 33, "ä" * 32])
def test_key_of_another_form_is_refused(workshop: Workshop, text: str) -> None:
    workshop.model("m")
    workshop.prove("m")
    workshop.key_file.write_text(text)

    with pytest.raises(UnprovenError, match="is not 64 hexadecimal digits"):
        answer(workshop)


def test_relative_key_is_refused() -> None:
    with pytest.raises(UnprovenError, match="give the absolute path"):
        check.read_key("proof.key")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"max_batch_size": 4}, {"max_batch_size": 4, "platform": "", "input": []}, True),
        ({"dims": ["1", "28"]}, {"dims": [1, 28]}, True),
        ({"dims": ["1", "28"]}, {"dims": [1, 29]}, False),
        ({"dims": [1]}, {"dims": [1, 1]}, False),
        ({}, {"dynamic_batching": {"preserve_ordering": False}}, False),
        ({"version_policy": {"all": {}}}, {"version_policy": {"latest": {"n": 1}}}, False),
        ({"version_policy": {"all": {}}}, {}, False),
        ({"kind": "KIND_CPU"}, {"kind": "KIND_GPU"}, False),
        ({"optional": True}, {"optional": False}, False),
    ],
)
def test_configurations_are_equal_up_to_defaults(one: object, other: object, same: bool) -> None:
    assert same_config(one, other) is same
    assert same_config(other, one) is same


def test_program_answers_one_line_whatever_a_file_is_called(workshop: Workshop) -> None:
    version = workshop.model("m")
    workshop.prove("m")
    with open(os.fsencode(version) + b"/\xff\nallow\t.bin", "wb"):
        pass
    config = config_json(open_repository(workshop.repository).model("m").config)
    arguments = [str(workshop.repository / "m"), str(workshop.key_file), "", ""]

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", check.__file__, *arguments],
        input=json.dumps(config),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "veto\t1/\\udcff?allow?.bin is not in the proof.\n"
    assert done.stderr == ""


def test_program_refuses_a_huge_configuration(workshop: Workshop) -> None:
    workshop.model("m")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", check.__file__, "/m", str(workshop.key_file), "", ""],
        input=" " * (check.CONFIG_BYTES_MAX + 1),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == f"veto\tthe configuration is over {check.CONFIG_BYTES_MAX} bytes.\n"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)  # fmt: skip


@given(value=JSON_VALUES, before=st.text(" \t\r\n"), after=st.text(" \t\r\n"))
def test_json_is_read_as_the_standard_library_reads_it(value: Any, before: str, after: str) -> None:
    for ascii_only in (True, False):
        text = before + json.dumps(value, ensure_ascii=ascii_only) + after
        assert check.parse_json(text.encode("utf-8", "surrogatepass")) == json.loads(text)


def read_by(parse: Callable[[bytes], Any], data: bytes) -> str:
    """What ``parse`` makes of ``data``, told by its text, for NaN and 1.0 == 1."""
    try:
        return repr(parse(data))
    except ValueError:
        return "refused"


@given(value=JSON_VALUES, cut=st.integers(0, 40), put=st.sampled_from([b"", b"}", b"]", b"\xff"]))
def test_what_is_no_json_is_refused_where_the_standard_library_refuses(
    value: Any, cut: int, put: bytes
) -> None:
    data = json.dumps(value).encode()
    data = data[:cut] + put + data[cut + 1 :]

    assert read_by(check.parse_json, data) == read_by(lambda data: json.loads(data.decode()), data)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "", "  ", "1 2"])
def test_neither_constants_beyond_json_nor_several_values_are_read(text: str) -> None:
    with pytest.raises(ValueError, match="JSON"):
        check.parse_json(text.encode())


def test_the_check_imports_no_regular_expressions() -> None:
    # They alone would double the time that a check takes while the server holds a lock.
    code = (
        "import sys; sys.argv = ['check.py', '/nowhere', '', '', '']; "
        f"exec(open({check.__file__!r}).read()); "
        "sys.stdout.write(','.join(sorted({'re', 'json', 'typing', 'enum'} & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code],
        input='{"name": "nowhere"}',
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("veto\tno key is named")
    assert done.stdout.endswith("\n")
