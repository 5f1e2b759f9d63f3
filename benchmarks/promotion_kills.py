"""Kill promotions and rollbacks at random instants, and look at what is left.

Every operation runs in a process of its own, which SIGKILL ends after a random part of the time
that an undisturbed one takes. Then, without repairing anything: the configuration must parse, what
it serves must be the old version or the new one, whole, and loadable by ONNX Runtime; every version
that was there must have its bytes. A running Triton is told to load a sample of these states.
At last the same operation is called again, where it is not done, and must finish.

    python benchmarks/promotion_kills.py [KILLS]
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from promotion_runs import MODEL, write_repository, write_run

from trimton.plugin.promotion.journal import Journal
from trimton.plugin.promotion.promote import promote
from trimton.plugin.promotion.rollback import roll_back
from trimton.plugin.promotion.versions import remove_leftovers
from trimton.plugin.repository import Repository, path_digest
from trimton.plugin.server.process import TritonServer
from trimton.plugin.version_policy import served_versions

BALLAST_BYTES = 1 << 20
TRITON_LOADS_EVERY = 8
SEED = 7


def served(repository: Repository) -> tuple[int, ...]:
    """What the configuration on the disk serves."""
    model = repository.model(MODEL)
    return served_versions(model.config, model.versions)


def digests(repository: Repository) -> dict[int, str]:
    """Every version with its digest."""
    model = repository.model(MODEL)
    return {version: path_digest(model.folder / str(version)) for version in model.versions}


def kill_after(seconds: float, operation: Callable[[], object]) -> bool:
    """Run ``operation`` in a child and kill it; whether it was still at it."""
    child = os.fork()
    if child == 0:
        operation()
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def loads(repository: Repository, version: int) -> bool:
    """Whether ONNX Runtime loads a version and it answers."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # the unused weights are meant
    file = repository.model(MODEL).model_file(version)
    session = onnxruntime.InferenceSession(file, options)
    (answer,) = session.run(None, {"x": np.ones((1, 2), np.float32)})
    return bool((answer == 2).all())


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    chance = random.Random(SEED)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = write_repository(folder / "models", BALLAST_BYTES)
        limits = undisturbed(folder)
        with TritonServer.start(
            repository.path, load=[MODEL], log_file=folder / "server.log"
        ) as server:
            for number in range(kills):
                before, old = digests(repository), served(repository)
                if number % 2 == 0:
                    run = write_run(folder / f"run{number}", repository, BALLAST_BYTES)
                    kind, operation = "promote", lambda run=run: promote(run, [repository.path])
                else:
                    kind, operation = "rollback", lambda: roll_back([repository.path], MODEL)
                moment = chance.uniform(0, limits[kind])
                counts["killed at work"] += kill_after(moment, operation)
                now, versions = served(repository), digests(repository)
                counts["kills"] += 1
                counts["versions lost"] += sum(versions.get(v) != d for v, d in before.items())
                is_old, is_whole = now == old, all(loads(repository, v) for v in now)
                counts[f"{kind}: {'old' if is_old else 'new'} state"] += 1
                counts["broken repositories"] += not is_whole
                if number % TRITON_LOADS_EVERY == 0:
                    server.control.load(MODEL)
                    ready = {int(e["version"]) for e in server.control.index() if is_ready(e)}
                    counts["loaded by Triton"] += ready >= set(now)
                    counts["not loaded by Triton"] += not ready >= set(now)
                if kind == "promote" or is_old:  # a second rollback would go back further
                    operation()
                Journal(repository.path).settle(MODEL, served(repository))
                after = served(repository)
                standing = Journal(repository.path).changes(MODEL)[-1]
                counts["finished in the end"] += standing.phase == "committed"
                counts["journal and repository differ"] += standing.after != after
        remove_leftovers(repository.path / MODEL)  # as the next promotion or rollback would
        counts["left aside in the end"] = len(list((repository.path / MODEL).glob(".*")))
    print(", ".join(f"{kind} takes {1e3 * s:.0f} ms" for kind, s in limits.items()))
    for what, count in sorted(counts.items()):
        print(f"{what:32s} {count}")


def undisturbed(folder: Path) -> dict[str, float]:
    """Seconds that each operation takes in a process of its own, the longest of three."""
    apart = write_repository(folder / "apart", BALLAST_BYTES)
    longest = {"promote": 0.0, "rollback": 0.0}
    for number in range(3):
        run = write_run(folder / f"apart-run{number}", apart, BALLAST_BYTES)
        for kind, operation in (
            ("promote", lambda run=run: promote(run, [apart.path])),
            ("rollback", lambda: roll_back([apart.path], MODEL)),
        ):
            started = time.monotonic()
            child = os.fork()
            if child == 0:
                operation()
                os._exit(0)
            os.waitpid(child, 0)
            longest[kind] = max(longest[kind], time.monotonic() - started)
    return longest


def is_ready(entry: dict[str, str]) -> bool:
    """Whether an entry of the server's index is a version that is served."""
    return entry["name"] == MODEL and entry.get("state") == "READY"


if __name__ == "__main__":
    main()
