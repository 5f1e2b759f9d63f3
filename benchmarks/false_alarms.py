"""How often a comparison calls noise a difference, and how soon it finds a real one of 5 %.

    python benchmarks/false_alarms.py [--simulated N] [--real N] [--window SECONDS] [--quick]

Simulated: arms that are equal, on machines that drift, with noise of three kinds, compared as
``trimton compare`` does: after every round, until the answers are clear or 30 rounds are over.

Real: fashion_resnet on one Triton under three names. ``base`` and ``same`` are equal; ``slow`` has
5 % added to each execution. All three run in a copy of Trimton's backend that can be slowed; the
one that ships cannot. Requests of eight samples, two in flight, keep the instance busy, so that 5 %
more time is 5 % less throughput. Exit code 1 if more than 5 % of equal pairs are told apart, or
the slow one is missed more than once in twenty.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from client_latency import FASHION
from rich.console import Console
from rich.progress import track
from rich.table import Table

import trimton.plugin.backends.onnxruntime
from trimton.perf.load.arms import ServedArm
from trimton.perf.load.feeds import random_feeds
from trimton.perf.load.requests import prepare_requests
from trimton.perf.load.rounds import measure_rounds
from trimton.perf.measure.histogram import LatencyHistogram
from trimton.perf.results import LoadWindow
from trimton.perf.stats.sequential import Comparison, Questions, measure_until_clear
from trimton.perf.targets.endpoint import Endpoint
from trimton.plugin.server.process import TritonServer

ROUNDS_MAX = 30
ROUNDS_MAX_REAL = 60  # of short windows: what disturbs them comes and goes within seconds
ASKED = ("throughput_rps", "latency_mean_ms")
ERROR_RATE = 0.05
POWER = 0.95
SLOWED = 1.05
BATCH = 8
CONCURRENCY = 2

# Set at the end of a copy of the backend, which then runs as an ordinary Python model.
SLOWED_BACKEND = """

import json
import time

_Backend = TritonPythonModel


class TritonPythonModel(_Backend):
    def initialize(self, args):
        config = json.loads(args["model_config"])
        config["default_model_filename"] = "model.onnx"
        self.slowed = float(config["parameters"]["slowed"]["string_value"])
        super().initialize({**args, "model_config": json.dumps(config)})

    def execute(self, requests):
        started_ns = time.perf_counter_ns()
        responses = super().execute(requests)
        end_ns = started_ns + int(self.slowed * (time.perf_counter_ns() - started_ns))
        while time.perf_counter_ns() < end_ns:
            pass
        return responses
"""
CONFIG = """
backend: "python"
max_batch_size: 32
input {{ name: "input" data_type: TYPE_FP32 dims: [ 1, 28, 28 ] }}
output {{ name: "logits" data_type: TYPE_FP32 dims: [ 10 ] }}
instance_group {{ count: 1 kind: KIND_CPU }}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
parameters {{ key: "slowed" value {{ string_value: "{slowed}" }} }}
"""


@dataclass(frozen=True)
class Tally:
    """How many comparisons ended how, by the throughput; rounds and seconds of each."""

    comparisons: int
    alarms: int  # any asked metric was called better or worse
    outcomes: Counter[str]
    rounds: tuple[int, ...]
    seconds: tuple[float, ...]


def tally(results: Sequence[Comparison]) -> Tally:
    """Count ``results``, each of one variant."""
    outcomes: Counter[str] = Counter()
    alarms = 0
    for result in results:
        (metrics,) = result.metrics.values()
        asked = {m.name.partition("@")[0]: m.outcome for m in metrics}
        outcomes[asked["throughput_rps"]] += 1
        alarms += any(asked[name] in ("better", "worse") for name in ASKED)
    return Tally(
        comparisons=len(results),
        alarms=alarms,
        outcomes=outcomes,
        rounds=tuple(result.rounds for result in results),
        seconds=tuple(result.seconds for result in results),
    )


# --- simulated ------------------------------------------------------------------------------------

Noise = Callable[[np.random.Generator], float]

NOISES: dict[str, Noise] = {
    "normal, 2 %": lambda g: float(g.normal(0, 0.02)),
    "normal, 10 % of windows slower by 15 %": lambda g: float(
        g.normal(0, 0.02) - (0.15 if g.random() < 0.1 else 0.0)
    ),
    "heavy tails (Student, 3 degrees)": lambda g: float(0.015 * g.standard_t(3)),
}
NO_LATENCIES = LatencyHistogram().encode()


def simulate(noise: Noise, seed: int, ratio: float = 1.0) -> Comparison:
    """One comparison of two arms on a machine whose speed drifts by 1 % a round."""
    generator = np.random.default_rng(seed)
    speed = 100.0

    def window(variant: str, number: int, expected_rps: float) -> LoadWindow:
        rps = expected_rps * np.exp(noise(generator))
        return LoadWindow(
            variant=variant,
            concurrency=1,
            batch=1,
            round=number,
            duration_s=1.0,
            requests=0,
            errors={},
            throughput_rps=rps,
            latency_histogram=NO_LATENCIES,
            latency_mean_ms=1000 / rps * np.exp(generator.normal(0, 0.005)),
            client_cpu_us_per_request=0.0,
        )

    def measure(rounds: int, done: tuple[LoadWindow, ...]) -> tuple[LoadWindow, ...]:
        nonlocal speed
        speed *= np.exp(generator.normal(0, 0.01))
        return (*done, window("a", rounds - 1, speed), window("b", rounds - 1, ratio * speed))

    questions = Questions("a", ("b",), ASKED, levels=1)
    return measure_until_clear(measure, questions, rounds_max=ROUNDS_MAX)


# --- real -----------------------------------------------------------------------------------------


def write_models(repository: Path) -> None:
    """``base``, ``same`` and ``slow`` in a backend that can be slowed."""
    backend = Path(trimton.plugin.backends.onnxruntime.__path__[0]) / "model.py"
    source = backend.read_text(encoding="utf-8") + SLOWED_BACKEND
    for name, slowed in (("base", 1.0), ("same", 1.0), ("slow", SLOWED)):
        folder = repository / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(source, encoding="utf-8")
        shutil.copy(FASHION / "1" / "model.onnx", folder)
        (folder.parent / "config.pbtxt").write_text(CONFIG.format(slowed=slowed))


def compare_real(
    arms: dict[str, ServedArm], variant: str, window_s: float, seed: int
) -> Comparison:
    """One comparison of ``variant`` with ``base``."""
    questions = Questions("base", (variant,), ASKED, levels=1)
    return measure_until_clear(
        lambda rounds, done: measure_rounds(
            [arms["base"], arms[variant]],
            levels=[CONCURRENCY],
            rounds=rounds,
            window_s=window_s,
            warmup_s=window_s / 4,
            seed=seed,
            done=done,
        ),
        questions,
        rounds_max=ROUNDS_MAX_REAL,
        seed=seed,
    )


def real(count: int, window_s: float) -> dict[str, Tally]:
    """``count`` comparisons of equal arms and as many with the slow one, alternating."""
    found: dict[str, list[Comparison]] = {"same": [], "slow": []}
    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch) / "models"
        write_models(repository)
        with (
            TritonServer.start(repository, log_file=Path(scratch) / "log") as server,
            Endpoint(server.http_url) as endpoint,
        ):
            specs = endpoint.model_metadata("base").inputs
            feeds = random_feeds(specs, batch=BATCH, count=16, seed=0)
            arms = {
                name: ServedArm(
                    name,
                    endpoint,
                    name,
                    prepare_requests(server.http_url, name, feeds, specs),
                    batch=BATCH,
                )
                for name in ("base", "same", "slow")
            }
            screen = Console(stderr=True)
            for seed in track(range(count), "comparing", console=screen, transient=True):
                for variant, results in found.items():
                    results.append(compare_real(arms, variant, window_s, seed))
    return {variant: tally(results) for variant, results in found.items()}


# --- output ---------------------------------------------------------------------------------------


def add_row(table: Table, name: str, found: Tally) -> None:
    """One row of the table of all kinds of comparisons."""
    outcomes = found.outcomes
    told_apart = outcomes["better"] + outcomes["worse"]
    table.add_row(
        name,
        str(found.comparisons),
        f"{found.alarms} ({found.alarms / found.comparisons:.1%})",
        f"{told_apart} / {outcomes['equivalent']} / {outcomes['inconclusive']}",
        f"{median(found.rounds):.0f} (up to {max(found.rounds)})",
        f"{median(found.seconds):.0f} (up to {max(found.seconds):.0f})"
        if any(second > 1 for second in found.seconds)
        else "-",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulated", type=int, default=400, metavar="N")
    parser.add_argument("--real", type=int, default=20, metavar="N")
    parser.add_argument("--window", type=float, default=0.3, help="seconds")
    parser.add_argument("--quick", action="store_true", help="a try: 50 simulated, 2 real")
    options = parser.parse_args()
    simulated, count = (50, 2) if options.quick else (options.simulated, options.real)

    table = Table("", "comparisons", "told apart", box=None)
    table.add_column("different / equal / open", justify="right")
    table.add_column("rounds")
    table.add_column("seconds")
    worst = 0.0
    for number, (name, noise) in enumerate(NOISES.items()):
        seeds = range(10_000 * number, 10_000 * number + simulated)
        equal = tally([simulate(noise, seed) for seed in seeds])
        slower = tally([simulate(noise, seed, ratio=1 / SLOWED) for seed in seeds])
        add_row(table, f"simulated A/A, {name}", equal)
        add_row(table, f"simulated A/B of 5 %, {name}", slower)
        worst = max(worst, equal.alarms / equal.comparisons)
    measured = real(count, options.window)
    add_row(table, "real A/A", measured["same"])
    add_row(table, "real A/B of 5 %", measured["slow"])
    Console(width=150).print(table)
    worst = max(worst, measured["same"].alarms / measured["same"].comparisons)
    slow = measured["slow"]
    is_held = worst <= ERROR_RATE and slow.outcomes["worse"] >= POWER * slow.comparisons
    sys.exit(0 if is_held else 1)


if __name__ == "__main__":
    main()
