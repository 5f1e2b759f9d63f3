"""Starting and ending a real server, also the hard way."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import psutil
import pytest

from trimton.core.errors import InfrastructureError, InputError
from trimton.plugin.server.installation import Installation, home
from trimton.plugin.server.probe import probe_model
from trimton.plugin.server.process import TritonServer
from trimton.plugin.server.run_folder import remove_dead, shm_prefix

if TYPE_CHECKING:
    from tests.conftest import SharedTriton

pytestmark = pytest.mark.server

OWNER = """
import sys, time
from pathlib import Path
from trimton.plugin.server.process import TritonServer
server = TritonServer.start(Path(sys.argv[1]), log_file=Path(sys.argv[2]))
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one small model of one instance."""
    folder = tmp_path / "models"
    (folder / "probe" / "1").mkdir(parents=True)
    onnx.save(probe_model(), folder / "probe" / "1" / "model.onnx")
    (folder / "probe" / "config.pbtxt").write_text(
        'backend: "onnxruntime"\ninstance_group [ { count: 1 kind: KIND_CPU } ]\n'
    )
    return folder


@pytest.fixture(autouse=True)
def own_home(installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own with the installed server, so that run folders are its alone."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "server").symlink_to(installation.folder)
    monkeypatch.setenv("TRIMTON_HOME", str(tmp_path / "home"))


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[TritonServer]:
    """A server of the test's own."""
    with TritonServer.start(repository, log_file=tmp_path / "server.log") as started:
        yield started


def tree_of(pid: int) -> list[psutil.Process]:
    """The server's processes with their supervisor: the whole session of its own."""
    root = psutil.Process(pid)
    supervisor = root.parent()
    assert supervisor is not None
    stubs = root.children(recursive=True)
    assert stubs, "a Python-based model has a stub process"
    return [supervisor, root, *stubs]


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether ``condition`` comes true before one gives up."""
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def run_folders() -> list[Path]:
    return list((home() / "run").iterdir())


def shared_memory(folder: Path) -> list[Path]:
    return list(Path("/dev/shm").glob(f"{shm_prefix(folder)}*"))


def test_stop_ends_every_process_and_removes_its_shared_memory(
    repository: Path, tmp_path: Path
) -> None:
    with TritonServer.start(repository, log_file=tmp_path / "server.log") as server:
        processes = tree_of(server.pid)
        (folder,) = run_folders()
        assert shared_memory(folder)
        assert server.alive()
    assert not server.alive()
    assert all_gone(processes)
    assert not shared_memory(folder)
    assert not folder.exists()
    server.stop()  # can be called again


def test_killed_owner_leaves_no_process(repository: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(repository), str(tmp_path / "server.log")],
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        processes = tree_of(int(owner.stdout.readline()))
        (folder,) = run_folders()
        owner.send_signal(signal.SIGKILL)
    assert eventually(lambda: all_gone(processes))
    assert eventually(lambda: not folder.exists())
    assert not shared_memory(folder)


def test_killed_supervisor_takes_the_server_along(server: TritonServer) -> None:
    processes = tree_of(server.pid)
    processes[0].kill()
    assert eventually(lambda: all_gone(processes))
    assert not server.alive()


def test_leftovers_of_a_server_killed_with_its_supervisor_are_removed_later(
    server: TritonServer,
) -> None:
    supervisor, root, *stubs = tree_of(server.pid)
    (folder,) = run_folders()
    for stub in stubs:
        stub.suspend()  # so that none can tidy up
    for process in (supervisor, root, *stubs):
        process.kill()
    assert eventually(lambda: all_gone([supervisor, root, *stubs]))
    assert shared_memory(folder)
    remove_dead(home() / "run")  # as every start does
    assert not shared_memory(folder)
    assert not folder.exists()


def test_dead_server_is_reported_with_its_log(server: TritonServer) -> None:
    processes = tree_of(server.pid)
    server.require_alive()
    os.kill(server.pid, signal.SIGKILL)
    assert eventually(lambda: all_gone(processes))
    with pytest.raises(InfrastructureError, match="does not answer"):
        server.control.load("probe")
    with pytest.raises(InfrastructureError, match=r"ended with exit code 137.*server\.log"):
        server.wait()


def test_every_address_answers_and_the_version_is_the_installed_one(
    triton: SharedTriton, installation: Installation
) -> None:
    assert triton.server.control.version() == installation.triton_version
    assert triton.server.http_url.startswith("127.0.0.1:")
    assert triton.client.is_server_live()  # gRPC
    connection = http.client.HTTPConnection(triton.server.metrics_url)
    connection.request("GET", "/metrics")
    assert b"nv_inference_count" in connection.getresponse().read()


def test_model_that_cannot_be_loaded_is_one_sentence_and_leaves_nothing(
    repository: Path, tmp_path: Path
) -> None:
    (repository / "probe" / "1" / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(InputError, match=r"'probe' cannot be loaded: .*model\.onnx") as caught:
        TritonServer.start(repository, log_file=tmp_path / "server.log")
    assert "\n" not in str(caught.value)
    assert not run_folders()


def test_port_in_use_is_named(triton: SharedTriton, repository: Path, tmp_path: Path) -> None:
    port = int(triton.server.http_url.split(":")[1])
    with pytest.raises(InputError, match=f"http port {port} on 127.0.0.1 is in use"):
        TritonServer.start(repository, log_file=tmp_path / "server.log", http_port=port)
    assert not (tmp_path / "server.log").exists()


def test_unknown_model_is_named(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no model 'prob'; it has probe"):
        TritonServer.start(repository, log_file=tmp_path / "server.log", load=["prob"])


def test_folder_without_models_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty" / "notes").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no model"):
        TritonServer.start(tmp_path / "empty", log_file=tmp_path / "server.log")


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        TritonServer.start(tmp_path / "nowhere", log_file=tmp_path / "server.log")


def test_without_a_server_the_error_says_how_to_install_one(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTON_HOME", str(tmp_path / "other"))
    with pytest.raises(InputError, match=r"no Triton server is installed .*trimton server install"):
        TritonServer.start(repository, log_file=tmp_path / "server.log")
    assert not (tmp_path / "other").exists()
