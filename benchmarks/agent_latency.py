"""What the repository agent adds to a load, on a real Triton.

The example model is served twice from one server, once under the agent and once without it, and
both are reloaded in turn. The agent's own time is what it recorded for each load: settings, the
check in a process of its own (SHA-256 of every file, signature, processor), the record. A model
with a large file beside it shows what bytes cost. All this is done on the machine as it is, and
again while twice as many processes as there are cores do nothing but compute.

    python benchmarks/agent_latency.py [LOADS]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from trimton.core.files import copy_folder
from trimton.perf.hardware import describe
from trimton.perf.verdict import Verdict
from trimton.plugin import proof
from trimton.plugin.agent.build import build_agent
from trimton.plugin.repository import open_repository, path_digest
from trimton.plugin.run_directory import VERDICT_NAME
from trimton.plugin.server.process import TritonServer

EXAMPLE = Path(__file__).parents[1] / "model_repository" / "fashion_resnet"
LOADS = 25
LIMIT_MS = 200.0  # what the agent may take of a load of the example model
BALLAST_BYTES = 256 << 20
SECTION = """
model_repository_agents {{ agents [ {{ name: "trimton"
  parameters {{ key: "key_file" value: "{key}" }}
  parameters {{ key: "record_file" value: "{record}" }}
}} ] }}
"""


def write_model(repository: Path, name: str, section: str, ballast_bytes: int = 0) -> None:
    """The example model under another name, with ``section`` in its configuration."""
    copy_folder(EXAMPLE / "1", repository / name / "1")
    config = (EXAMPLE / "config.pbtxt").read_text(encoding="utf-8")
    config = config.replace('name: "fashion_resnet"', f'name: "{name}"') + section
    (repository / name / "config.pbtxt").write_text(config, encoding="utf-8")
    if ballast_bytes:
        (repository / name / "1" / "ballast.bin").write_bytes(os.urandom(ballast_bytes))


def prove(folder: Path, repository: Path, name: str, key_file: Path) -> None:
    """Prove the model as the baseline of a run."""
    model = open_repository(repository).model(name)
    digest = path_digest(model.folder / "1")
    verdict = Verdict(
        model=name,
        outcome="inconclusive",
        candidate="none",
        baseline_digest=digest,
        candidate_digest=digest,
        created="2026-01-01T00:00:00+00:00",
        environment={"hardware": describe().to_json()},
        settings={},
        variants=(),
    )
    run = folder / f"run-{name}"
    run.mkdir()
    (run / VERDICT_NAME).write_text(verdict.model_dump_json(), encoding="utf-8")
    proof.prove_version(run, model, 1, proof.read_key(key_file))


def load_ms(server: TritonServer, repository: Path, name: str) -> float:
    """Milliseconds of one reload; Triton reloads only what is newer."""
    os.utime(repository / name / "1" / "model.onnx")
    start = time.perf_counter_ns()
    server.control.load(name)
    return (time.perf_counter_ns() - start) / 1e6


def recorded_ms(record: Path, name: str) -> list[float]:
    """The agent's own time for each load of a model, in milliseconds."""
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    assert all(line["outcome"] == "allow" for line in lines)
    return [line["duration_us"] / 1e3 for line in lines if line["location"].endswith(f"/{name}")]


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that compute for as long as the block takes."""
    with ExitStack() as stack:
        for _ in range(processes):
            spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(spinning.wait)
            stack.callback(spinning.kill)
        yield


@dataclass(frozen=True)
class Bench:
    """A server with a model under the agent, the same without it, and a large one."""

    server: TritonServer
    repository: Path
    record: Path

    def measure(self, loads: int) -> str:
        """Reload all of them and tell what it took."""
        already = len(recorded_ms(self.record, "guarded")), len(recorded_ms(self.record, "large"))
        times: dict[str, list[float]] = {"unguarded": [], "guarded": []}
        for i in range(loads):
            for model in sorted(times, reverse=bool(i % 2)):
                times[model].append(load_ms(self.server, self.repository, model))
        for _ in range(max(3, loads // 8)):
            load_ms(self.server, self.repository, "large")
        return told(
            times,
            recorded_ms(self.record, "guarded")[already[0] :],
            recorded_ms(self.record, "large")[already[1] :],
        )


def told(times: dict[str, list[float]], own: Sequence[float], large: Sequence[float]) -> str:
    """The table; ``own`` and ``large`` are the agent's own times in milliseconds."""
    without, under = statistics.median(times["unguarded"]), statistics.median(times["guarded"])
    extra_ms = statistics.median(large) - statistics.median(own)
    held = "held" if max(own) < LIMIT_MS else "BROKEN"
    return (
        f"  load without the agent {without:8.1f} ms\n"
        f"  load under the agent   {under:8.1f} ms ({under / without:.2f} x)\n"
        f"  the agent itself       {statistics.median(own):8.1f} ms, slowest {max(own):.1f} ms "
        f"(limit {LIMIT_MS:.0f} ms: {held})\n"
        f"  more for {BALLAST_BYTES >> 20} MiB more  {extra_ms:7.1f} ms "
        f"({BALLAST_BYTES / extra_ms / 1e6:.2f} GB/s)"
    )


def main() -> None:
    loads = int(sys.argv[1]) if len(sys.argv) > 1 else LOADS
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="trimton-bench-") as name:
        folder = Path(name)
        repository, record, key = folder / "models", folder / "record.jsonl", folder / "key"
        build_agent(folder / "agents")
        proof.new_key(key)
        section = SECTION.format(key=key, record=record)
        write_model(repository, "unguarded", "")
        write_model(repository, "guarded", section)
        write_model(repository, "large", section, BALLAST_BYTES)
        for guarded in ("guarded", "large"):
            prove(folder, repository, guarded, key)
        with TritonServer.start(
            repository,
            load=["guarded", "unguarded", "large"],
            log_file=folder / "server.log",
            repoagents=folder / "agents",
        ) as server:
            bench = Bench(server, repository, record)
            print(f"{loads} loads of the example model each, in turn; medians")
            print(bench.measure(loads))
            with busy(2 * cores):
                print(f"the same beside {2 * cores} processes that compute, on {cores} cores")
                print(bench.measure(loads))


if __name__ == "__main__":
    main()
