"""Promotions and rollbacks while clients ask, on a real Triton in control mode explicit.

Requests leave at a constant rate, each at its scheduled instant, from which its latency counts. In
turn, `trimton promote` and `trimton rollback` run as processes of their own beside them. The two
versions multiply by other factors, so that every answer tells which one gave it. A request fails
if it is refused, breaks off, or is answered by neither.

    python benchmarks/promotion_under_load.py [ROUNDS] [http|grpc]

Told over its HTTP port, a Triton makes other clients of HTTP wait while it loads; the second
argument compares (default: grpc).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from promotion_runs import MODEL, write_repository, write_run

from trimton.core.errors import TrimtonError
from trimton.perf.targets.endpoint import Endpoint
from trimton.plugin.server.process import TritonServer

CLIENTS = 8
RATE_RPS = 200.0
QUIET_S = 4.0
BASELINE_FACTOR, VARIANT_FACTOR = 2.0, 3.0
TRIMTON = (sys.executable, "-m", "trimton.plugin.cli.main")


@dataclass
class Load:
    """Clients that ask at a constant rate until ``stop``; what each request met, by phase."""

    url: str
    phase: str = "before"
    latencies_ms: dict[str, list[float]] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_over: threading.Event = field(default_factory=threading.Event)

    def start(self) -> list[threading.Thread]:
        """Start all clients, their instants spread evenly."""
        begin = time.monotonic() + 0.1
        clients = [
            threading.Thread(target=self._client, args=(begin + number / RATE_RPS,))
            for number in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        return clients

    def _client(self, instant: float) -> None:
        x = np.ones((1, 2), np.float32)
        with Endpoint(self.url) as endpoint:
            specs = endpoint.model_metadata(MODEL).inputs
            while not self.is_over.is_set():
                time.sleep(max(0.0, instant - time.monotonic()))
                phase = self.phase
                try:
                    factor = float(endpoint.infer(MODEL, {"x": x}, specs)["y"][0, 0])
                    known = factor in (BASELINE_FACTOR, VARIANT_FACTOR)
                    answer = f"times {factor:g}" if known else "failed: wrong answer"
                except TrimtonError as error:
                    answer = f"failed: {error}"
                latency_ms = 1e3 * (time.monotonic() - instant)
                with self.lock:
                    self.answers[answer] += 1
                    self.latencies_ms.setdefault(phase, []).append(latency_ms)
                instant += CLIENTS / RATE_RPS


def changes(folder: Path, rounds: int, url: str) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """The command line of each change, made when its turn comes."""
    from trimton.plugin.repository import Repository

    repository = Repository(folder / "models")
    for number in range(rounds):

        def promote(number: int = number) -> list[str]:
            run = write_run(folder / f"run{number}", repository, factor=VARIANT_FACTOR)
            return [*TRIMTON, "promote", str(run), "--into", str(repository.path), "--server", url]

        def rollback() -> list[str]:
            return [*TRIMTON, "rollback", str(repository.path), MODEL, "--server", url]

        yield "promote", promote
        yield "rollback", rollback


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    over_grpc = sys.argv[2:] != ["http"]
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = write_repository(folder / "models")
        log_file = folder / "server.log"
        with TritonServer.start(repository.path, load=[MODEL], log_file=log_file) as server:
            load = Load(server.http_url)
            clients = load.start()
            time.sleep(QUIET_S)
            grpc_port = server.grpc_url.rpartition(":")[2]
            address = f"{server.http_url},{grpc_port}" if over_grpc else server.http_url
            for kind, arguments in changes(folder, rounds, address):
                command = arguments()
                load.phase, started = kind, time.monotonic()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                seconds.setdefault(kind, []).append(time.monotonic() - started)
                load.phase = "between"
                time.sleep(QUIET_S)
            load.is_over.set()
            for client in clients:
                client.join()
    failed = sum(count for answer, count in load.answers.items() if answer.startswith("failed"))
    print(f"requests {load.answers.total()}, failed {failed}")
    for answer, count in sorted(load.answers.items()):
        print(f"  {answer}: {count}")
    print(f"{'ms':10s} {'requests':>8s} {'p50':>7s} {'p90':>7s} {'p99':>7s} {'max':>7s}")
    for phase, latencies in load.latencies_ms.items():
        figures = (*np.percentile(latencies, [50, 90, 99]), max(latencies))
        print(f"{phase:10s} {len(latencies):8d} " + " ".join(f"{ms:7.2f}" for ms in figures))
    for kind, taken in seconds.items():
        print(f"{kind}: {np.median(taken):.1f} s in the median, with the start of the program")


if __name__ == "__main__":
    main()
