"""``trimton doctor REPO`` lists what is loaded without a proof, on the disk and in a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trimton.plugin.agent.bypasses import repository_bypasses, server_bypasses
from trimton.plugin.cli.main import main
from trimton.plugin.proof import config_json
from trimton.plugin.repository import open_repository
from trimton.plugin.server.control import ControlClient
from trimton.plugin.server.installation import Installation
from trimton.plugin.server.process import TritonServer

if TYPE_CHECKING:
    from tests.plugin.agent.conftest import GuardedTriton, Workshop


def bypasses(workshop: Workshop) -> dict[str | None, str]:
    return {b.model: b.reason for b in repository_bypasses(open_repository(workshop.repository))}


def test_only_models_that_ask_the_agent_and_heed_it_are_guarded(workshop: Workshop) -> None:
    workshop.model("guarded")
    workshop.write_version(workshop.repository / "bare" / "1", 2.0)
    workshop.model("silent")
    (workshop.repository / "silent" / "config.pbtxt").write_text('backend: "onnxruntime"\n')
    workshop.model("lenient", mode="warn")
    workshop.model("broken")
    (workshop.repository / "broken" / "config.pbtxt").write_text("backend: {\n")

    found = bypasses(workshop)

    assert sorted(map(str, found)) == ["bare", "broken", "lenient", "silent"]
    assert "is missing" in found["bare"]
    assert "does not name the agent" in found["silent"]
    assert "only warns" in found["lenient"]
    assert "line" in found["broken"]


def test_a_model_that_lies_outside_is_listed(workshop: Workshop, tmp_path: Path) -> None:
    workshop.model("guarded")
    (workshop.repository / "guarded").rename(tmp_path / "outside")
    (workshop.repository / "linked").symlink_to(tmp_path / "outside")

    assert "link out of the repository" in bypasses(workshop)["linked"]


def diagnose(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *arguments, "--json"])
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)


def test_the_command_fails_where_something_bypasses(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    workshop.model("guarded")
    assert diagnose(capsys, str(workshop.repository)) == (
        0,
        {"repository": str(workshop.repository), "models": 1, "bypasses": []},
    )

    workshop.write_version(workshop.repository / "bare" / "1", 2.0)
    code, report = diagnose(capsys, str(workshop.repository))
    assert code == 1
    assert [bypass["model"] for bypass in report["bypasses"]] == ["bare"]


@pytest.mark.server
def test_a_loaded_override_and_open_load_requests_are_listed(guarded: GuardedTriton) -> None:
    workshop = guarded.workshop
    workshop.model("overridden")
    repository = open_repository(workshop.repository)
    control = ControlClient(guarded.server.http_url)
    before = {bypass.model for bypass in server_bypasses(control, repository)}

    config = config_json(repository.model("overridden").config)
    config.pop("model_repository_agents")
    guarded.client.load_model("overridden", config=json.dumps(config))
    found = {bypass.model: bypass.reason for bypass in server_bypasses(control, repository)}

    assert before == {None}
    assert set(found) == {None, "overridden"}
    assert "touch" in found["overridden"]
    assert "--http-restricted-api" in found[None]


@pytest.mark.server
def test_a_server_that_loads_at_its_start_only_takes_no_requests(
    installation: Installation, agents: Path, workshop: Workshop, tmp_path: Path
) -> None:
    workshop.model("guarded")
    workshop.prove("guarded")
    with TritonServer.start(
        workshop.repository,
        load=None,
        log_file=tmp_path / "server.log",
        installation=installation,
        repoagents=agents,
    ) as server:
        found = list(
            server_bypasses(ControlClient(server.http_url), open_repository(workshop.repository))
        )

    assert found == []
