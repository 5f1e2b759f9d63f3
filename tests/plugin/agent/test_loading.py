"""The agent in a real server: what is proven is served, what is not is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tritonclient.utils import InferenceServerException

from trimton.core.errors import InputError
from trimton.plugin.proof import ProofTerms, config_json
from trimton.plugin.repository import open_repository
from trimton.plugin.server.installation import Installation
from trimton.plugin.server.process import TritonServer

if TYPE_CHECKING:
    from tests.plugin.agent.conftest import GuardedTriton, Workshop

pytestmark = pytest.mark.server


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def eventually(condition: Callable[[], bool]) -> None:
    """Return when ``condition`` comes true; give up after half a minute."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.1)


def assert_vetoed(guarded: GuardedTriton, name: str, reason: str) -> None:
    """The load fails, and the server's log and the agent's record say why."""
    with pytest.raises(InputError):
        guarded.load(name)
    last = guarded.workshop.records()[-1]
    assert last["outcome"] == "veto"
    assert reason in last["reason"]
    assert last["location"] == str(guarded.workshop.repository / name)
    assert json.dumps(last["reason"])[1:-1] in guarded.log()  # the server's log is escaped


def test_proven_model_is_served_and_recorded(guarded: GuardedTriton) -> None:
    guarded.workshop.model("proven", factor=3.0)
    guarded.workshop.prove("proven")

    guarded.load("proven")

    assert guarded.factor("proven") == 3.0
    last = guarded.workshop.records()[-1]
    assert last["outcome"] == "allow"
    assert last["reason"] == "proven: version 1"
    assert last["duration_us"] > 0


def test_model_without_a_proof_is_vetoed(guarded: GuardedTriton) -> None:
    guarded.workshop.model("unproven")

    assert_vetoed(guarded, "unproven", "there is no proof")


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("1/model.onnx", "1/model.onnx has changed since it was proven"),
        ("1.proof.json", "1.proof.json is no proof"),
        ("config.pbtxt", "config.pbtxt has changed since it was proven"),
    ],
)
def test_one_changed_byte_is_vetoed(guarded: GuardedTriton, file: str, reason: str) -> None:
    name = f"changed_{file.split('/')[-1].replace('.', '_')}"
    guarded.workshop.model(name, extra="# a comment, and nothing behind it\n")
    guarded.workshop.prove(name)
    path = guarded.workshop.repository / name / file
    if file == "config.pbtxt":
        path.write_text(path.read_text().replace("a comment", "b comment"))
    elif file == "1.proof.json":
        path.write_text(path.read_text().replace('"payload"', '"qayload"'))
    else:
        flip_last_byte(path)

    assert_vetoed(guarded, name, reason)


def test_changed_statement_is_vetoed(guarded: GuardedTriton) -> None:
    guarded.workshop.model("forged")
    path = guarded.workshop.prove("forged").path
    envelope = json.loads(path.read_text())
    payload = envelope["payload"]
    envelope["payload"] = ("A" if payload[40] != "A" else "B").join((payload[:40], payload[41:]))
    path.write_text(json.dumps(envelope))

    assert_vetoed(guarded, "forged", "is not signed with the key hmac-sha256:")


def test_expired_proof_is_vetoed(guarded: GuardedTriton) -> None:
    guarded.workshop.model("expired")
    guarded.workshop.prove("expired", terms=ProofTerms(valid_days=1e-9))

    assert_vetoed(guarded, "expired", "expired on")


def test_served_version_stays_when_its_successor_is_vetoed(guarded: GuardedTriton) -> None:
    guarded.workshop.model("successor", factor=2.0)
    guarded.workshop.prove("successor")
    guarded.load("successor")
    guarded.workshop.write_version(guarded.workshop.repository / "successor" / "2", factor=7.0)

    assert_vetoed(guarded, "successor", "successor/2.proof.json")
    assert guarded.factor("successor") == 2.0

    guarded.workshop.prove("successor", version=2)
    guarded.load("successor")
    assert guarded.factor("successor") == 7.0
    assert guarded.workshop.records()[-1]["reason"] == "proven: version 2"


def test_polling_server_takes_a_successor_once_it_is_proven(
    workshop: Workshop,
    guarded_by: Callable[[TritonServer, Workshop], GuardedTriton],
    installation: Installation,
    agents: Path,
) -> None:
    workshop.model("m", factor=2.0)
    workshop.prove("m")
    with TritonServer.start(
        workshop.repository,
        control_mode="poll",
        log_file=workshop.folder / "server.log",
        installation=installation,
        repoagents=agents,
        extra_arguments=["--repository-poll-secs=1"],
    ) as server:
        polled = guarded_by(server, workshop)
        workshop.write_version(workshop.repository / "m" / "2", factor=7.0)
        eventually(lambda: workshop.records()[-1]["outcome"] == "veto")
        assert polled.factor("m") == 2.0

        workshop.prove("m", version=2)
        eventually(lambda: polled.factor("m") == 7.0)
        polled.client.close()


def test_redirect_serves_the_proven_variant(guarded: GuardedTriton, tmp_path: Path) -> None:
    variant = tmp_path / "variant"
    guarded.workshop.model("redirected", factor=2.0, redirect=variant)
    guarded.workshop.write_version(variant / "1", factor=5.0)
    assert_vetoed(guarded, "redirected", f"there is no proof {variant}/1.proof.json")

    guarded.workshop.prove("redirected", folder=variant)
    guarded.load("redirected")

    assert guarded.factor("redirected") == 5.0
    last = guarded.workshop.records()[-1]
    assert (last["outcome"], last["folder"]) == ("redirect", str(variant))


def test_warn_mode_serves_and_says_what_it_would_have_refused(guarded: GuardedTriton) -> None:
    guarded.workshop.model("warned", factor=4.0, mode="warn")

    guarded.load("warned")

    assert guarded.factor("warned") == 4.0
    last = guarded.workshop.records()[-1]
    assert last["outcome"] == "warn"
    assert f"trimton: {last['location']}: {last['reason']}" in guarded.log()


@pytest.mark.parametrize(
    ("name", "parameters", "reason"),
    [
        ("odd_mode", {"mode": "off"}, "mode is 'off'; it can be enforce or warn"),
        ("odd_name", {"mdoe": "warn"}, "has no parameter 'mdoe'"),
        ("odd_limit", {"time_limit_ms": "soon"}, "time_limit_ms is 'soon'"),
        ("odd_python", {"python": "/bin/sh"}, "has no parameter 'python'"),
        ("no_key", {"key_file": "/nowhere/key"}, "the key /nowhere/key cannot be read"),
        ("odd_policy", {"policy": "0" * 64}, "is of the policy"),
        ("odd_redirect", {"redirect": "../other"}, "leads out of the model"),
    ],
)
def test_wrong_parameter_is_vetoed(
    guarded: GuardedTriton, name: str, parameters: dict[str, str], reason: str
) -> None:
    guarded.workshop.model(name, **parameters)
    guarded.workshop.prove(name)

    assert_vetoed(guarded, name, reason)


def test_load_with_another_configuration_is_vetoed(guarded: GuardedTriton) -> None:
    guarded.workshop.model("overridden")
    guarded.workshop.prove("overridden")
    guarded.load("overridden")
    config = config_json(open_repository(guarded.workshop.repository).model("overridden").config)

    guarded.client.load_model("overridden", config=json.dumps(config))
    assert guarded.workshop.records()[-1]["outcome"] == "allow"

    config["max_batch_size"] = 3
    with pytest.raises(InferenceServerException, match="failed to load 'overridden'"):
        guarded.client.load_model("overridden", config=json.dumps(config))
    assert "the configuration to load is not the one" in guarded.workshop.records()[-1]["reason"]


def test_server_does_not_start_without_a_model_that_the_agent_refuses(
    workshop: Workshop, installation: Installation, agents: Path
) -> None:
    workshop.model("refused")

    with pytest.raises(InputError, match=r"'refused' is refused: trimton: there is no proof") as e:
        TritonServer.start(
            workshop.repository,
            log_file=workshop.folder / "server.log",
            installation=installation,
            repoagents=agents,
        )
    assert "\n" not in str(e.value)


def test_the_agent_is_not_asked_where_the_configuration_does_not_name_it(
    guarded: GuardedTriton,
) -> None:
    workshop = guarded.workshop
    workshop.model("bare", factor=6.0)
    (workshop.repository / "bare" / "config.pbtxt").unlink()
    workshop.model("unasked", factor=8.0)
    before = len(workshop.records())
    config = config_json(open_repository(workshop.repository).model("unasked").config)
    del config["model_repository_agents"]

    guarded.load("bare")
    guarded.client.load_model("unasked", config=json.dumps(config))

    assert (guarded.factor("bare"), guarded.factor("unasked")) == (6.0, 8.0)
    assert len(workshop.records()) == before


def test_server_without_the_agent_refuses_models_that_name_it(
    workshop: Workshop, installation: Installation
) -> None:
    workshop.model("m")
    workshop.prove("m")

    with pytest.raises(InputError, match=r"'m' is refused: .*libtritonrepoagent_trimton\.so"):
        TritonServer.start(
            workshop.repository,
            log_file=workshop.folder / "server.log",
            installation=installation,
        )


Spoil = Callable[[Path], None]


def link_out(version: Path) -> None:
    outside = version.parents[2] / "outside.bin"
    outside.write_bytes(b"secret")
    (version / "weights.bin").symlink_to(outside)


def link_version(version: Path) -> None:
    moved = version.rename(version.with_name("moved"))
    version.symlink_to(moved)


def add_file(version: Path) -> None:
    (version / 'evil\n"name".onnx').write_bytes(b"more")


def remove_file(version: Path) -> None:
    (version / "model.onnx").rename(version / "other.onnx")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (link_out, "weights.bin is a link; copy the file itself"),
        (link_version, "1 is a link or no folder"),
        (add_file, '1/evil?"name".onnx is not in the proof'),
        (remove_file, "1/model.onnx is proven, but missing"),
    ],
)
def test_links_and_unknown_files_are_vetoed(
    guarded: GuardedTriton, spoil: Spoil, reason: str
) -> None:
    name = spoil.__name__
    version = guarded.workshop.model(name)
    guarded.workshop.prove(name)
    spoil(version)

    assert_vetoed(guarded, name, reason)
