"""How time and memory of pruning grow with the size of a model.

    python benchmarks/prune_scaling.py

Residual networks from 5 M to 100 M parameters, and ResNet-50. "ties" finds what can be removed,
"cut" ranks by magnitude and removes half of it; both without the proof and without measuring the
outputs. "memory" is the highest resident size of the process above that of a process without a
model, in units of the file's size: loading counts. Each row is a process of its own.
Exit code 1 if ResNet-50 takes more than 10 s or six times its size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import onnx_ir as ir
import psutil
from prune_topologies import Net
from real_models import light_model

from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.shapes import restored_declarations
from trimton.transforms.prune import PruneSettings
from trimton.transforms.prune.cut import cut
from trimton.transforms.prune.plan import find, make_plan, prepared

MILLIONS = (5, 10, 20, 50, 100)
RESNET50 = "resnet50"
MAX_SECONDS, MAX_TIMES_SIZE = 10.0, 6.0
# A block has two 3x3 convolutions of 128 channels.
_CHANNELS = 128
_BLOCK_PARAMETERS = 2 * (_CHANNELS * _CHANNELS * 9 + _CHANNELS)


def deep_residual(parameters: int) -> ir.Model:
    """As many residual blocks of 128 channels as make ``parameters``."""
    net = Net(1.0)
    x = net.relu(net.conv("x", 3, _CHANNELS))
    for _ in range(parameters // _BLOCK_PARAMETERS):
        y = net.conv(net.relu(net.conv(x, _CHANNELS, _CHANNELS)), _CHANNELS, _CHANNELS)
        x = net.relu(net.node("Add", x, y))
    return net.model(net.head(x, _CHANNELS))


class PeakMemory:
    """The highest resident size of this process, sampled every 5 ms, above that at the start."""

    def __enter__(self) -> PeakMemory:
        self._process = psutil.Process()
        self._start = self._process.memory_info().rss
        self.bytes = 0
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._is_done.wait(0.005):
            self.bytes = max(self.bytes, self._process.memory_info().rss - self._start)

    def __exit__(self, *_: object) -> None:
        self._is_done.set()
        self._thread.join()


def write(name: str, path: Path) -> None:
    """Write the model of one row."""
    model = light_model(name).model if name == RESNET50 else deep_residual(int(name) * 10**6)
    ir.save(model, path)


def measure(path: Path) -> None:
    """Print the figures of the model in ``path`` as JSON."""
    settings = PruneSettings(ratio=0.5)
    with PeakMemory() as peak:
        model = load_model(path)
        start = time.perf_counter()
        work = prepared(model)
        with restored_declarations(work):
            found = find(work)
            middle = time.perf_counter()
            cut(work, make_plan(work, found, settings, None).kept)
        end = time.perf_counter()
    before = model_cost(model)
    figures = {
        "parameters": before.parameters,
        "nodes": before.nodes,
        "ties_s": middle - start,
        "cut_s": end - middle,
        "times_size": peak.bytes / path.stat().st_size,
        "gone": 1 - model_cost(work).parameters / before.parameters,
    }
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--measure", type=Path, metavar="FILE", help="one row, as JSON")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return
    print(
        f"{'model':<10} {'M params':>8} {'nodes':>6} {'ties s':>7} {'cut s':>6} {'memory':>7} gone"
    )
    for name in (RESNET50, *map(str, MILLIONS)):
        with tempfile.TemporaryDirectory(prefix="trimton-") as folder:
            path = Path(folder) / "model.onnx"
            write(name, path)
            command = [sys.executable, __file__, "--measure", path]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        row = json.loads(done.stdout)
        bar = "#" * round(10 * (row["ties_s"] + row["cut_s"]))
        print(
            f"{name if name == RESNET50 else 'residual':<10} {row['parameters'] / 1e6:>8.1f} "
            f"{row['nodes']:>6} {row['ties_s']:>7.2f} {row['cut_s']:>6.2f} "
            f"{row['times_size']:>6.1f}x {row['gone']:.1%} {bar}",
            flush=True,
        )
        if name == RESNET50:
            is_quick = row["ties_s"] + row["cut_s"] <= MAX_SECONDS
            holds = is_quick and row["times_size"] <= MAX_TIMES_SIZE
    print("one # is a tenth of a second")
    if not holds:
        sys.exit(
            f"{RESNET50} takes more than {MAX_SECONDS:g} s or {MAX_TIMES_SIZE:g} times its size"
        )


if __name__ == "__main__":
    main()
