"""Quantise real models with Trimton and its rivals, and print what each result is worth.

    python benchmarks/quantize_models.py [--quick] [--again] [--models NAME...] [--tools NAME...]

Every recipe gets the same 128 samples and works in a process of its own, rivals in environments
of their own. The columns:

- ``quality`` in the fused kernels of this machine;
- ``size`` and ``latency``, shares of the float file's (batch 1, one thread; the models take
  turns, the median of the rounds' ratios);
- ``noise``: how far the outputs move with every operator as ONNX defines it (root mean square,
  relative to the float model's), and ``fused``: how far those of the fused kernels are from
  these, as a share of that noise; saturating kernels make it exceed 1;
- the seconds and the memory that quantising took.

The kernels that ran are listed below each table. A rival that fails is shown with its reason.

Exit code 1 if a target is missed. --quick takes Trimton and ONNX Runtime's MinMax alone, --tools
those whose names begin so; --again makes rivals' files anew that are kept from an earlier call.
Models and data are fetched once. All tools on all models take about half an hour.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from evaluation.catalogue import EVALUATIONS
from evaluation.evaluation import Evaluation, predictor
from quantize_measures import Kernels, Noise, kernels, latencies_ms, noise
from quantize_recipes import RIVALS, TRIMTON, Made, Recipe, make

from trimton.perf.hardware import describe
from trimton.transforms.graph.load import one_line
from trimton.transforms.graph.session import ORT_ERRORS

SECONDS_OF_LATENCY = 20
NOISE_REQUESTS = 32
MOST_CHARACTERS = 150
MOST_SLOWER_THAN_RIVAL = 1.03


@dataclass(frozen=True)
class Target:
    """What Trimton must reach: ``lost`` is against the float model's quality."""

    quality: float | None = None
    lost: float | None = None
    size: float | None = None
    latency: float | None = None


TARGETS = {
    "fashion_resnet": Target(lost=0.002),
    # A quarter, and 12 bytes of scales and bias for each of 22,000 output channels.
    "efficientnet_lite0": Target(quality=0.975, size=0.27, latency=1.15),
    "rapidocr_rec": Target(quality=0.89, size=0.30),
    "minilm_l3": Target(quality=0.98, size=0.26, latency=1.0),
    "magika": Target(lost=0.01),
    "silero_vad": Target(lost=0.01),
}


@dataclass(frozen=True)
class Result:
    """One quantised model that runs. ``size`` and ``latency`` are shares of the float model's."""

    recipe: str
    made: Made
    quality: float
    size: float
    noise: Noise
    kernels: Kernels
    latency: float = np.nan

    @property
    def is_quantised(self) -> bool:
        return bool(self.kernels.integer)

    def line(self) -> str:
        return (
            f"{self.recipe:<24} {self.quality:>8.4f} {self.size:>6.2f} {self.latency:>8.2f} "
            f"{self.noise.quantisation:>7.3f} {self.noise.ratio:>6.2f} "
            f"{self.made.seconds:>8.1f} {self.made.peak_bytes / 2**20:>8.0f}"
        )


HEAD = (
    f"{'':<24} {'quality':>8} {'size':>6} {'latency':>8} {'noise':>7} {'fused':>6} "
    f"{'seconds':>8} {'MiB':>8}"
)


def result(recipe: Recipe, evaluation: Evaluation, made: Made) -> Result | str:
    """What the file is worth, but for its latency; the reason where it cannot be used."""
    if made.failure is not None:
        return made.failure
    try:
        predict = predictor(made.model)
        return Result(
            recipe.name,
            made,
            evaluation.quality(predict),
            made.model.stat().st_size / evaluation.model.stat().st_size,
            noise(evaluation.model, made.model, evaluation.calibration[:NOISE_REQUESTS]),
            kernels(made.model, evaluation.request),
        )
    except ORT_ERRORS as error:
        # The runtime names the file first, and then what is wrong with it.
        reason = one_line(str(error)).rpartition("failed:")[2]
        return f"does not run: {reason[:MOST_CHARACTERS]}"


def with_latency(evaluation: Evaluation, found: Sequence[Result]) -> list[Result]:
    """``found`` with latencies, all of them and the float model measured in turns."""
    models = {"float": evaluation.model} | {one.recipe: one.made.model for one in found}
    times = latencies_ms(models, evaluation.request, SECONDS_OF_LATENCY)
    ratios = {name: float(np.median(ms / times["float"])) for name, ms in times.items()}
    return [replace(one, latency=ratios[one.recipe]) for one in found]


def misses(name: str, float_quality: float, found: Sequence[Result]) -> Iterator[str]:
    """Each target that Trimton's result misses, in words."""
    ours = next((one for one in found if one.recipe == TRIMTON.name), None)
    if ours is None:
        yield "nothing made"
        return
    target = TARGETS[name]
    least = target.quality if target.lost is None else float_quality - target.lost
    if least is not None and ours.quality < least:
        yield f"quality {ours.quality:.4f}, wanted {least:.4f}"
    if target.size is not None and ours.size > target.size:
        yield f"size {ours.size:.3f}, wanted {target.size}"
    if target.latency is not None and ours.latency > target.latency:
        yield f"latency {ours.latency:.2f}, wanted {target.latency}"
    rivals = [one.latency for one in found if one is not ours and one.is_quantised]
    if rivals and ours.latency > MOST_SLOWER_THAN_RIVAL * min(rivals):
        yield f"latency {ours.latency:.2f}, the fastest rival's {min(rivals):.2f}"
    if ours.noise.ratio > 1:
        yield f"fused kernels are {ours.noise.ratio:.1f} times the quantisation noise away"
    if ours.kernels.idle:
        yield f"{ours.kernels.idle} conversions fuse nowhere"


def bench(name: str, recipes: Sequence[Recipe], *, again: bool) -> list[str]:
    """Print the table of one model; gives what it misses."""
    evaluation = EVALUATIONS[name]()
    float_quality = evaluation.quality(predictor(evaluation.model))
    size_mib = evaluation.model.stat().st_size / 2**20
    print(f"\n{name}: {evaluation.metric} {float_quality:.4f} in float, {size_mib:.1f} MiB")
    found: list[Result] = []
    failures: list[str] = []
    for recipe in recipes:
        one = result(recipe, evaluation, make(recipe, evaluation, again=again))
        if isinstance(one, str):
            failures.append(f"{recipe.name:<24} {one}")
        else:
            found.append(one)
    found = with_latency(evaluation, found)
    print(HEAD, *(one.line() for one in found), *failures, sep="\n")
    print(*(f"  {one.recipe}: {one.kernels.line()}" for one in found), sep="\n")
    missed = list(misses(name, float_quality, found)) if TRIMTON in recipes else []
    print(*(f"  missed: {text}" for text in missed), sep="\n", flush=True)
    return missed


def _lower(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.lower() for name in names)


def main() -> None:
    tools = {recipe.name: recipe for recipe in (TRIMTON, *RIVALS)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=EVALUATIONS, default=list(EVALUATIONS))
    parser.add_argument("--tools", nargs="+", metavar="NAME", help=", ".join(tools))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    wanted = arguments.tools or ((TRIMTON.name, RIVALS[0].name) if arguments.quick else [""])
    recipes = [r for name, r in tools.items() if name.lower().startswith(_lower(wanted))]
    if not recipes:
        parser.error(f"no tool is named so; there are {', '.join(tools)}")
    machine = describe()
    print(machine.cpu_model, *machine.instruction_sets)
    missed = [m for name in arguments.models for m in bench(name, recipes, again=arguments.again)]
    if missed:
        sys.exit(f"{len(missed)} targets are missed")


if __name__ == "__main__":
    main()
