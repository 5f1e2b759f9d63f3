"""A folder of runs with verdicts, and a hook server in a process of its own."""

from __future__ import annotations

import datetime
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from trimton.perf.results import Interval
from trimton.perf.verdict import Check, CheckOutcome, VariantVerdict, Verdict
from trimton.plugin import hooks as hooks_package
from trimton.plugin.run_directory import VERDICT_NAME

TOKEN = "t0ken-" * 8
DIGESTS = {name: f"sha256:{number:064x}" for number, name in enumerate(("base", "good", "bad"), 1)}


@dataclass(frozen=True)
class Runs:
    """Run directories; each verdict is younger than the one before."""

    folder: Path
    made: list[str] = field(default_factory=list)

    def judge(
        self,
        outcome: CheckOutcome,
        digest: str,
        *,
        model: str = "net",
        baseline: str = DIGESTS["base"],
        age_days: float = 0.0,
    ) -> Path:
        """Write the verdict of one more run; returns its directory."""
        run = self.folder / f"{model}-{len(self.made)}"
        self.made.append(run.name)
        run.mkdir(parents=True)
        moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=age_days)
        created = (moment + datetime.timedelta(microseconds=len(self.made))).isoformat()
        check = Check(
            metric="latency_p99_ms",
            rule="max",
            observed=Interval(value=9.0),
            limit=5.0,
            unit="ms",
            samples=8,
            outcome=outcome,
            why="it is above the limit",
        )
        verdict = Verdict(
            model=model,
            outcome=outcome,
            candidate="small",
            baseline_digest=baseline,
            candidate_digest=digest,
            created=created,
            environment={},
            settings={"policy": {"candidate": "small"}},
            variants=(
                VariantVerdict(variant="small", digest=digest, outcome=outcome, checks=(check,)),
            ),
        )
        (run / VERDICT_NAME).write_text(verdict.model_dump_json())
        return run


@dataclass(frozen=True)
class HookServer:
    """A running server, a client with the token, and its log."""

    url: str
    client: httpx.Client
    log_file: Path

    def flagger(self, hook: str, **metadata: Any) -> httpx.Response:
        """Call a hook as Flagger does."""
        body = {"name": "net", "namespace": "prod", "phase": "Progressing", "metadata": metadata}
        return self.client.post(f"/flagger/{hook}", json=body)

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """No runs yet, in a folder that is there."""
    (tmp_path / "runs").mkdir()
    return Runs(tmp_path / "runs")


@pytest.fixture(scope="module")
def shared_runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One run that passed and a later one that failed, on different bytes."""
    made = Runs(tmp_path_factory.mktemp("runs"))
    made.judge("pass", DIGESTS["good"])
    made.judge("fail", DIGESTS["bad"])
    return made


@contextmanager
def serving(
    runs: Runs, folder: Path, *options: str, verify: ssl.SSLContext | bool = True
) -> Iterator[HookServer]:
    """``trimton serve-hooks`` over ``runs`` while the block runs; it must leave in good order."""
    token = folder / "token"
    token.write_text(TOKEN + "\n")
    token.chmod(0o600)
    command = [
        *(sys.executable, "-m", "trimton.plugin.cli.main", "serve-hooks"),
        *(str(runs.folder), "--token-file", str(token), "--port", "0", *options),
    ]
    log_file = folder / "log"
    with (
        log_file.open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix("listening on ").strip()
            assert url, log_file.read_text()
            headers = {"Authorization": f"Bearer {TOKEN}"}
            with httpx.Client(base_url=url, headers=headers, timeout=30, verify=verify) as client:
                yield HookServer(url, client, log_file)
        finally:
            process.terminate()
            assert process.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def hooks(shared_runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HookServer]:
    """A server over shared_runs."""
    with serving(shared_runs, tmp_path_factory.mktemp("hooks")) as server:
        yield server


@pytest.fixture(scope="session")
def serve_hooks() -> Callable[..., AbstractContextManager[HookServer]]:
    """Starts a server of the test's own."""
    return serving


@pytest.fixture(scope="session")
def resources() -> dict[str, dict[str, Any]]:
    """Every resource of the files for clusters, by file and kind."""
    return {
        f"{path.parent.name}/{path.name}: {document['kind']}": document
        for path in sorted(Path(hooks_package.__file__).parent.glob("*/*.yaml"))
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    }
