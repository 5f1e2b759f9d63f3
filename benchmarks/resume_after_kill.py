"""Kill the main job at random instants, resume it, and compare with an undisturbed run.

    python benchmarks/resume_after_kill.py [--recipe recipes/fashion_resnet.yaml] [--kills 3]

Prints, for each kill, when it came and which stages had been finished; then whether a finished
stage was repeated, whether variants, quality and outcomes are those of the undisturbed run, and
whether a process of the killed server survived.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]


def start(recipe: Path, directory: Path) -> subprocess.Popen[bytes]:
    """The main job as a process of its own."""
    command = [sys.executable, "-m", "trimton.plugin.cli.main", "run", str(recipe)]
    return subprocess.Popen(
        [*command, "--run-dir", str(directory)], cwd=ROOT, stdout=subprocess.DEVNULL
    )


def journal(directory: Path) -> list[dict[str, Any]]:
    """The events of a run directory; a last line that the kill cut short is left out."""
    path = directory / "journal.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def repeated_stages(directory: Path) -> list[str]:
    """Stages that were started again after they had been finished with the same inputs."""
    finished: set[tuple[str, str]] = set()
    repeated = []
    for event in journal(directory):
        key = (event["stage"], event["key"])
        if event["event"] == "started" and key in finished:
            repeated.append(event["stage"])
        if event["event"] == "finished":
            finished.add(key)
    return repeated


def repeated_windows(directory: Path, seen: dict[str, set[str]]) -> int:
    """Windows of complete rounds that an earlier look saw and that are gone now."""
    gone = 0
    for file in (directory / "windows").glob("*.jsonl"):
        now = set(file.read_text().splitlines())
        gone += len(seen.get(file.name, set()) - now)
    return gone


def complete_windows(directory: Path) -> dict[str, set[str]]:
    """The lines of rounds that are complete, by file."""
    result: dict[str, set[str]] = {}
    for file in (directory / "windows").glob("*.jsonl"):
        lines = [text for text in file.read_text().splitlines(keepends=True) if text[-1] == "\n"]
        rounds = Counter(json.loads(line)["round"] for line in lines)
        most = max(rounds.values(), default=0)
        result[file.name] = {
            line.rstrip("\n") for line in lines if rounds[json.loads(line)["round"]] == most
        }
    return result


def server_processes() -> set[int]:
    """Triton servers and their Python stubs on this machine."""
    names = ("tritonserver", "triton_python_backend_stub")
    return {
        p.pid
        for p in psutil.process_iter(["name"])
        if (p.info["name"] or "")[:12] in tuple(name[:12] for name in names)
    }


def result_of(directory: Path) -> dict[str, Any]:
    """What must not depend on interruptions: variants, quality, and the checks that are exact."""
    verdict = json.loads((directory / "verdict.json").read_text())
    document = json.loads((directory / "measurements.json").read_text())
    return {
        "variants": {v["name"]: v["digest"] for v in document["variants"]},
        "quality": document["quality"],
        "outcome": verdict["outcome"],
        "windows": sorted(
            (w["variant"], w["concurrency"], w["round"]) for w in document["windows"]
        ),
    }


def main() -> int:
    """Run the comparison; exit with 1 if a run differs or a stage is repeated."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "fashion_resnet.yaml")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="trimton-resume-"))
    before = server_processes()

    started = time.monotonic()
    start(options.recipe, folder / "undisturbed").wait()
    total_s = time.monotonic() - started
    print(f"undisturbed run: {total_s:.0f} s; seed {options.seed}")

    interrupted = folder / "interrupted"
    marks = sorted(rng.uniform(0.05, 0.95) * total_s for _ in range(options.kills))
    waits = [end - begin for begin, end in zip([0.0, *marks], marks, strict=False)]
    lost_windows = 0
    for number, wait in enumerate(waits, 1):
        seen = complete_windows(interrupted)
        process = start(options.recipe, interrupted)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        lost_windows += repeated_windows(interrupted, seen)
        done = list(
            dict.fromkeys(e["stage"] for e in journal(interrupted) if e["event"] != "started")
        )
        kept = sum(map(len, complete_windows(interrupted).values()))
        print(
            f"kill {number} after {wait:.1f} s: finished so far {', '.join(done) or 'nothing'}; "
            f"{kept} windows of complete rounds"
        )
    seen = complete_windows(interrupted)
    code = start(options.recipe, interrupted).wait()
    lost_windows += repeated_windows(interrupted, seen)

    time.sleep(1)
    survivors = server_processes() - before
    a, b = result_of(folder / "undisturbed"), result_of(interrupted)
    repeated = repeated_stages(interrupted)
    print(f"resumed run: exit code {code}, outcome {b['outcome']} (undisturbed: {a['outcome']})")
    print(f"finished stages repeated: {len(repeated)} {repeated or ''}")
    print(f"windows of complete rounds measured again: {lost_windows}")
    for name in ("variants", "quality", "outcome", "windows"):
        print(f"same {name}: {'yes' if a[name] == b[name] else 'NO'}")
    print(f"server processes left over: {len(survivors)}")
    good = a == b and not repeated and not lost_windows and not survivors
    shutil.rmtree(folder)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
