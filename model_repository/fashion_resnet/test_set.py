"""All 10,000 Fashion-MNIST test images, where Debian's ``dataset-fashion-mnist`` is installed."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FOLDER = Path("/usr/share/datasets/fashion-mnist")


def images() -> Iterator[dict[str, np.ndarray]]:
    """Yield one batch with ``input`` float32 [10000, 1, 28, 28] and ``labels``.

    Raises FileNotFoundError where the data set is not installed.
    """
    with gzip.open(FOLDER / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(FOLDER / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    # The same packing as in evaluation.npz, so that both give the same values bit by bit.
    with np.load(Path(__file__).parent / "evaluation.npz") as archive:
        scale, offset = archive["input.scale_factor"], archive["input.add_offset"]
    yield {"input": pixels.astype(np.float32) * scale + offset, "labels": labels}
