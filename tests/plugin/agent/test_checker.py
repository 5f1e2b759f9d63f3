"""What the agent makes of a checker that is missing, hangs, fails or talks nonsense."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from trimton.core.errors import InputError
from trimton.plugin.server.installation import Installation
from trimton.plugin.server.process import TritonServer

if TYPE_CHECKING:
    from tests.plugin.agent.conftest import Workshop

pytestmark = pytest.mark.server

TIME_LIMIT_MS = 400


@dataclass(frozen=True)
class Rig:
    """A server whose agent runs ``interpreter``, a shell script of the test's, instead of Python.

    What the server's environment says wins over the models' own parameters.
    """

    server: TritonServer
    workshop: Workshop
    interpreter: Path

    def answer(self, name: str, script: str) -> dict[str, Any]:
        """Load a new model with ``script`` as the checker; the agent's record of it."""
        self.interpreter.write_text(f"#!/bin/sh\n{script}\n")
        self.interpreter.chmod(0o755)
        return self.load(name)

    def load(self, name: str) -> dict[str, Any]:
        self.workshop.model(name, time_limit_ms=600000, mode="warn")
        try:
            self.server.control.load(name)
        except InputError:
            record = self.workshop.records()[-1]
            assert record["outcome"] == "veto"
        else:
            record = self.workshop.records()[-1]
            assert record["outcome"] != "veto"
        return record


@pytest.fixture(scope="module")
def rig(
    installation: Installation,
    agents: Path,
    new_workshop: Callable[[Path], Workshop],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("rig")
    workshop = new_workshop(folder)
    workshop.model("idle")
    interpreter = folder / "interpreter"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRIMTON_AGENT_PYTHON", str(interpreter))
        environment.setenv("TRIMTON_AGENT_TIME_LIMIT_MS", str(TIME_LIMIT_MS))
        environment.setenv("TRIMTON_AGENT_MODE", "enforce")
        started = TritonServer.start(
            workshop.repository,
            control_mode="explicit",
            log_file=folder / "server.log",
            installation=installation,
            repoagents=agents,
        )
    with started as server:
        yield Rig(server, workshop, interpreter)


def test_answer_of_the_checker_decides(rig: Rig) -> None:
    record = rig.answer("answered", "cat > /dev/null; printf 'allow\\tas it says\\n'")

    assert (record["outcome"], record["reason"]) == ("allow", "as it says")


def test_environment_of_the_server_wins_over_the_models_own_parameters(rig: Rig) -> None:
    # Rig.load asks for ``mode: warn`` and ten minutes.
    record = rig.answer("loosened", "sleep 600")

    assert record["outcome"] == "veto"
    assert f"within {TIME_LIMIT_MS} ms" in record["reason"]


def test_missing_interpreter_is_a_veto(rig: Rig) -> None:
    rig.interpreter.unlink(missing_ok=True)

    reason = rig.load("missing")["reason"]

    assert reason == (
        f"the checker's interpreter {rig.interpreter} cannot be started: No such file or directory"
    )


@pytest.mark.parametrize(
    ("name", "script", "reason"),
    [
        ("hangs", "sleep 600", f"did not answer within {TIME_LIMIT_MS} ms"),
        ("hangs_after", "printf 'allow\\tx\\n'; sleep 600", "did not answer within"),
        ("closes", "printf 'allow\\tx\\n'; exec >&-; sleep 600", "did not answer within"),
        ("fails", "printf 'allow\\tx\\n'; exit 3", "failed with exit status 3"),
        ("dies", "kill -9 $$", "ended by signal 9"),
        ("silent", "exit 0", "gave no answer that the agent knows"),
        ("cut", "printf 'allow\\tx'", "gave no answer that the agent knows"),
        ("two_lines", "printf 'allow\\tx\\nallow\\ty\\n'", "gave no answer that the agent knows"),
        ("unknown", "printf 'perhaps\\tx\\n'", "gave no answer that the agent knows"),
        ("floods", "exec cat /dev/zero", "answered more than 4096 bytes"),
        ("nowhere", "printf 'redirect\\t\\n'", "gave no answer that the agent knows"),
        ("vetoes", "printf 'veto\\tbecause\\n'", "because"),
    ],
)
def test_anything_but_a_whole_answer_is_a_veto(
    rig: Rig, name: str, script: str, reason: str
) -> None:
    record = rig.answer(name, script)

    assert record["outcome"] == "veto"
    assert reason in record["reason"]


def test_what_a_hanging_checker_started_ends_with_it(rig: Rig) -> None:
    pids = rig.workshop.folder / "pids"

    rig.answer("lingers", f"sleep 600 & echo $! $$ > {pids}; wait")

    for pid in map(int, pids.read_text().split()):
        assert gone(pid)
    children = psutil.Process(rig.server.pid).children()
    assert not [child for child in children if child.status() == psutil.STATUS_ZOMBIE]


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False
