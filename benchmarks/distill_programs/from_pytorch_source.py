"""Torch-Pruning from the PyTorch source, then distillation in plain PyTorch for given seconds.

    python from_pytorch_source.py TEACHER.onnx OUT.onnx --ratio R --seconds S --threads N [--labels]

Runs in an environment of its own (see benchmarks/torch_pruning_rival.py). The teacher's weights go
into the network of ``train.py`` that they came from; channels are cut by group magnitude, in steps
of 16, the last layer left alone. Then SGD with one cosine in bfloat16, on the images and the
variation of ``training_set.py``, towards the teacher's softened classes: everything as in
Trimton's own training, but for the source.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from math import cos, pi
from pathlib import Path

import numpy as np
import onnx
import torch
import torch_pruning
from torch import nn
from torch.nn import functional as F

FOLDER = Path(__file__).parents[2] / "model_repository" / "fashion_resnet"
sys.path.insert(0, str(FOLDER))

import train as source  # noqa: E402
import training_set  # noqa: E402

BATCH, RATE, DECAY, TEMPERATURE, WARMUP = 128, 0.05, 5e-4, 2.0, 0.05
LABEL_WEIGHT, AVERAGING = 0.1, 0.998


def network(path: Path) -> nn.Module:
    """The network of train.py with the weights in the ONNX file: their names are the same."""
    model = source.FashionResNet()
    weights = {
        tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
        for tensor in onnx.load(path).graph.initializer
    }
    model.load_state_dict(weights, strict=False)
    return model.eval()


def prune(model: nn.Module, ratio: float) -> None:
    """Cut the share ``ratio`` of the channels of every group, in place."""
    pruner = torch_pruning.pruner.MetaPruner(
        model,
        torch.randn(1, 1, 28, 28),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[model.classifier],
        round_to=16,
    )
    pruner.step()


def distill(
    teacher: nn.Module, student: nn.Module, seconds: float, with_labels: bool, seed: int
) -> nn.Module:
    """Train for ``seconds``; gives the running mean of the weights."""
    data = next(training_set.images())
    images, labels = data["input"], torch.from_numpy(data["labels"].astype(np.int64))
    rng = np.random.default_rng(seed)
    mean = copy.deepcopy(student)
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in student.parameters() if p.ndim > 1], "weight_decay": DECAY},
            {"params": [p for p in student.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=RATE,
        momentum=0.9,
        nesterov=True,
    )
    student.train()
    started, step = time.monotonic(), 0
    while (gone := (time.monotonic() - started) / seconds) < 1:
        rate = gone / WARMUP if gone < WARMUP else 0.5 * (1 + cos(pi * (gone - WARMUP)))
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate
        chosen = rng.choice(len(images), BATCH, replace=False)
        x = torch.from_numpy(training_set.vary({"input": images[chosen]}, rng)["input"])
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                answer = teacher(x)
            made = student(x)
        wanted = F.log_softmax(answer.float() / TEMPERATURE, dim=1)
        found = F.log_softmax(made.float() / TEMPERATURE, dim=1)
        loss = TEMPERATURE**2 * F.kl_div(found, wanted, reduction="batchmean", log_target=True)
        if with_labels:
            hard = F.cross_entropy(made.float(), labels[torch.from_numpy(chosen)])
            loss = (1 - LABEL_WEIGHT) * loss + LABEL_WEIGHT * hard
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        _average(mean, student, min(AVERAGING, (1 + step) / (10 + step)))
        step += 1
    print(f"{step} steps, {step * BATCH / len(images):.1f} epochs", flush=True)
    return mean.eval()


@torch.no_grad()
def _average(mean: nn.Module, student: nn.Module, decay: float) -> None:
    new = student.state_dict()
    for name, tensor in mean.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(new[name], 1 - decay)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("teacher", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ratio", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--labels", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    teacher = network(options.teacher)
    student = copy.deepcopy(teacher)
    prune(student, options.ratio)
    teacher, student = (m.to(memory_format=torch.channels_last) for m in (teacher, student))
    trained = distill(teacher, student, options.seconds, options.labels, options.seed)
    onnx.save(source.to_onnx(trained), options.out)


if __name__ == "__main__":
    main()
