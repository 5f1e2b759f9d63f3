"""Train ``fashion_resnet`` on Fashion-MNIST and write the files of this model folder.

Run from anywhere, in an environment with the ``distill`` extra (torch)::

    python model_repository/fashion_resnet/train.py --data /usr/share/datasets/fashion-mnist

Writes ``1/model.onnx`` (float32, opset 18, BatchNormalization left as trained),
``calibration.npz`` (512 training images) and ``evaluation.npz`` (2,000 test images).
Everything is seeded; the figure that the model card quotes is printed at the end.
"""

from __future__ import annotations

import argparse
import gzip
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images, pixels in [0, 1]
STAGES = ((32, 2, 1), (64, 2, 2), (128, 2, 2))  # channels, residual blocks, stride
CALIBRATION_SAMPLES, EVALUATION_SAMPLES = 512, 2000


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class FashionResNet(nn.Module):
    """15 convolutions, 80 million multiply-accumulates for a 28x28 image."""

    def __init__(self) -> None:
        super().__init__()
        width = STAGES[0][0]
        self.stem = nn.Conv2d(1, width, 3, 1, 1, bias=False)
        self.stem_bn = nn.BatchNorm2d(width)
        blocks: list[nn.Module] = []
        for channels, count, stride in STAGES:
            for index in range(count):
                blocks.append(ResidualBlock(width, channels, stride if index == 0 else 1))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.blocks(F.relu(self.stem_bn(self.stem(x))))
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(y, 1), 1))


def read_idx(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 1, 28, 28] and labels uint8 [N] of one part ("train" or "t10k")."""
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images, labels


def normalise(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((images.astype(np.float32) / 255.0 - MEAN) / STD)


def augment(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Per image: horizontal flip, shift by up to two pixels, one erased 8x8 square."""
    count = len(batch)
    flip = torch.rand(count, generator=generator) < 0.5
    batch = torch.where(flip[:, None, None, None], batch.flip(3), batch)
    background = -MEAN / STD
    padded = F.pad(batch, (2, 2, 2, 2), value=background)
    dy, dx = torch.randint(0, 5, (2, count), generator=generator)
    rows = (dy[:, None] + torch.arange(28))[:, :, None]
    columns = (dx[:, None] + torch.arange(28))[:, None, :]
    batch = padded[torch.arange(count)[:, None, None], 0, rows, columns][:, None]
    cy, cx = torch.randint(0, 28, (2, count), generator=generator)
    grid = torch.arange(28)
    inside_rows = (grid[None] - cy[:, None]).abs() < 4
    inside_columns = (grid[None] - cx[:, None]).abs() < 4
    erased = (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]
    return batch.masked_fill(erased, background)


@torch.inference_mode()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    hits = sum(
        int((model(images[i : i + 500]).argmax(1) == labels[i : i + 500]).sum())
        for i in range(0, len(images), 500)
    )
    return hits / len(images)


def train(model: nn.Module, data: Path, epochs: int, batch: int, rate: float, seed: int) -> None:
    """One-cycle SGD with Nesterov momentum and label smoothing, in bfloat16 where it is faster."""
    images, labels = (torch.from_numpy(a.copy()) for a in read_idx(data, "train"))
    inputs = normalise(images.numpy())
    targets = labels.long()
    generator = torch.Generator().manual_seed(seed)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    steps = epochs * (len(inputs) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.25)
    test_images, test_labels = read_idx(data, "t10k")
    test_inputs, test_targets = normalise(test_images), torch.from_numpy(test_labels.copy()).long()
    for epoch in range(epochs):
        model.train()
        started, total = time.monotonic(), 0.0
        order = torch.randperm(len(inputs), generator=generator)
        for chosen in order[: len(order) // batch * batch].split(batch):
            x = augment(inputs[chosen], generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(x)
            loss = F.cross_entropy(logits.float(), targets[chosen], label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        top1 = accuracy(model, test_inputs, test_targets)
        seconds = time.monotonic() - started
        print(
            f"epoch {epoch + 1}/{epochs}  loss {total / (len(inputs) // batch):.4f}  "
            f"test {top1:.4f}  {seconds:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.1, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkpoint", type=Path, required=True, help="state_dict to write")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    model = FashionResNet().to(memory_format=torch.channels_last)
    train(model, options.data, options.epochs, options.batch, options.rate, options.seed)
    torch.save(model.state_dict(), options.checkpoint)


if __name__ == "__main__":
    main()
