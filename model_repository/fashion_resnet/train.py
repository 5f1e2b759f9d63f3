"""Train ``fashion_resnet`` on Fashion-MNIST and write the files of this model folder.

Run from anywhere, in an environment with the ``distill`` extra (torch)::

    python model_repository/fashion_resnet/train.py --checkpoint /tmp/fashion_resnet.pt

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
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
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
    """One-cycle SGD with Nesterov momentum and label smoothing, in bfloat16."""
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


def to_onnx(model: nn.Module) -> onnx.ModelProto:
    """The network as standard ONNX (opset 18), batch free, BatchNormalization not folded.

    Written out operator by operator: torch's exporter either folds BatchNormalization or leaves
    shape arithmetic around it.
    """
    weights = {name: value.float().numpy() for name, value in model.state_dict().items()}
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []

    def node(op: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def weight(name: str) -> str:
        initializers.append(numpy_helper.from_array(weights[name], name))
        return name

    def conv_bn(x: str, conv: str, bn: str, size: int, stride: int) -> str:
        attributes = {
            "kernel_shape": [size, size],
            "strides": [stride, stride],
            "pads": [size // 2] * 4,
        }
        y = node("Conv", [x, weight(f"{conv}.weight")], f"{conv}.out", **attributes)
        parts = [weight(f"{bn}.{p}") for p in ("weight", "bias", "running_mean", "running_var")]
        return node("BatchNormalization", [y, *parts], f"{bn}.out", epsilon=1e-5)

    x = node("Relu", [conv_bn("input", "stem", "stem_bn", 3, 1)], "stem.relu")
    index = 0
    for _, count, stage_stride in STAGES:
        for position in range(count):
            block, stride = f"blocks.{index}", stage_stride if position == 0 else 1
            y = node(
                "Relu", [conv_bn(x, f"{block}.conv1", f"{block}.bn1", 3, stride)], f"{block}.relu1"
            )
            y = conv_bn(y, f"{block}.conv2", f"{block}.bn2", 3, 1)
            if f"{block}.shortcut.0.weight" in weights:
                x = conv_bn(x, f"{block}.shortcut.0", f"{block}.shortcut.1", 1, stride)
            x = node("Relu", [node("Add", [y, x], f"{block}.sum")], f"{block}.relu2")
            index += 1
    pooled = node("GlobalAveragePool", [x], "pool")
    features = node("Flatten", [pooled], "features", axis=1)
    node(
        "Gemm",
        [features, weight("classifier.weight"), weight("classifier.bias")],
        "logits",
        transB=1,
    )
    graph = helper.make_graph(
        nodes,
        "fashion_resnet",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        initializers,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    proto.producer_name = "trimton/model_repository/fashion_resnet/train.py"
    onnx.checker.check_model(proto, full_check=True)
    return proto


def write_samples(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Pixels stay uint8; ``value = pixel * scale_factor + add_offset`` is what the model takes."""
    packing = {
        "input.scale_factor": np.float32(1 / (255.0 * STD)),
        "input.add_offset": np.float32(-MEAN / STD),
    }
    np.savez_compressed(path, input=images, labels=labels, **packing)


def balanced(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sorted indices of ``count`` samples, the classes as equal in number as can be."""
    order = np.random.default_rng(seed).permutation(len(labels))
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        mine = order[labels[order] == label]
        rank[mine] = np.arange(len(mine))
    return np.sort(np.lexsort((labels, rank))[:count])


def write_model_folder(folder: Path, model: nn.Module, data: Path, seed: int) -> None:
    """Write 1/model.onnx and the two sample files; print the figures of the model card."""
    import onnxruntime

    (folder / "1").mkdir(parents=True, exist_ok=True)
    onnx.save_model(to_onnx(model), folder / "1" / "model.onnx")
    train_images, train_labels = read_idx(data, "train")
    chosen = balanced(train_labels, CALIBRATION_SAMPLES, seed)
    write_samples(folder / "calibration.npz", train_images[chosen], train_labels[chosen])
    images, labels = read_idx(data, "t10k")
    part = balanced(labels, EVALUATION_SAMPLES, seed)
    write_samples(folder / "evaluation.npz", images[part], labels[part])

    session = onnxruntime.InferenceSession(
        folder / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    inputs = normalise(images).numpy()
    logits = np.concatenate(
        [session.run(None, {"input": inputs[i : i + 500]})[0] for i in range(0, len(inputs), 500)]
    )
    hits = logits.argmax(1) == labels
    print(f"top-1 on the {len(hits):,} test images: {hits.mean():.4f} (ONNX Runtime, float32)")
    print(f"top-1 on the {len(part):,} images of evaluation.npz: {hits[part].mean():.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.1, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkpoint", type=Path, required=True, help="state_dict to write")
    parser.add_argument("--export-only", action="store_true", help="read the checkpoint instead")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    model = FashionResNet().to(memory_format=torch.channels_last)
    if options.export_only:
        model.load_state_dict(torch.load(options.checkpoint, weights_only=True))
    else:
        train(model, options.data, options.epochs, options.batch, options.rate, options.seed)
        torch.save(model.state_dict(), options.checkpoint)
    write_model_folder(Path(__file__).parent, model.eval(), options.data, options.seed)


if __name__ == "__main__":
    main()
