"""The commands of ``trimton server``, as a user and a pipeline run them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import psutil
import pytest

from trimton.plugin.server.installation import Installation
from trimton.plugin.server.probe import probe_model

TRIMTON = [sys.executable, "-m", "trimton.plugin.cli.main"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TRIMTON, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "probe" / "1"
    folder.mkdir(parents=True)
    onnx.save(probe_model(), folder / "model.onnx")
    return tmp_path / "models"


@pytest.mark.server
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "terminated"])
def test_start_serves_until_it_is_stopped(
    installation: Installation, repository: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    with subprocess.Popen(
        [
            *(*TRIMTON, "server", "start", str(repository), *ports),
            *("--log", str(tmp_path / "server.log"), "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        facts = json.loads("".join(lines))
        assert facts["version"] == installation.triton_version
        assert facts["models"] == ["probe"]
        connection = http.client.HTTPConnection(facts["http_url"])
        connection.request("GET", "/v2/models/probe/ready")
        assert connection.getresponse().status == 200
        connection.close()
        children = psutil.Process(process.pid).children(recursive=True)
        assert facts["pid"] in {child.pid for child in children}

        process.send_signal(stop)

        assert process.wait(60) == 0
        assert process.stderr.read() == ""
    assert not any(child.is_running() for child in children)
    assert "Waiting for in-flight requests to complete" in (tmp_path / "server.log").read_text()


@pytest.mark.parametrize(
    ("folder", "message"),
    [("nowhere", "no such folder"), ("empty", "holds no model")],
)
@pytest.mark.server
def test_wrong_repository_is_one_sentence_and_exit_2(
    installation: Installation, tmp_path: Path, folder: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    log = tmp_path / "server.log"
    done = run("server", "start", str(tmp_path / folder), "--log", str(log))
    assert done.returncode == 2
    assert done.stderr.startswith(f"trimton: {tmp_path / folder}: {message}")
    assert done.stderr.count("\n") == 1
    assert not log.exists()


def test_start_without_a_server_says_how_to_install_one(repository: Path, tmp_path: Path) -> None:
    done = run("server", "start", str(repository), TRIMTON_HOME=str(tmp_path / "home"))
    assert done.returncode == 2
    assert "run 'trimton server install'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.server
def test_install_again_changes_nothing_and_status_agrees(installation: Installation) -> None:
    installed = json.loads(run("server", "install", "--json").stdout)
    assert installed["changed"] is False
    assert installed["triton_version"] == installation.triton_version
    status = json.loads(run("server", "status", "--json").stdout)
    assert status["installed"] is True
    assert status["folder"] == installed["folder"] == str(installation.folder)


def test_status_and_uninstall_without_a_server(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    status = json.loads(run("server", "status", "--json", TRIMTON_HOME=home).stdout)
    assert status == {"installed": False, "defect": "none is installed"}
    removed = json.loads(run("server", "uninstall", "--json", TRIMTON_HOME=home).stdout)
    assert removed == {"changed": False}


def test_uninstall_removes_the_server_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "server" / "lib").mkdir(parents=True)
    (tmp_path / "server" / "lib" / "file").write_text("x")
    (tmp_path / "other").write_text("y")
    assert run("server", "uninstall", TRIMTON_HOME=str(tmp_path)).stdout == "removed\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "server.lock"]
