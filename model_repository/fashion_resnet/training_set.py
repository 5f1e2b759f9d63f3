"""The 60,000 Fashion-MNIST training images, where Debian's ``dataset-fashion-mnist`` is installed.

What a distilled student is trained on, and how its images are varied.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

FOLDER = Path("/usr/share/datasets/fashion-mnist")
SIZE = 28
LARGEST_SHIFT = 2
ERASED = 8  # sides of the square, in pixels


def images() -> Iterator[dict[str, np.ndarray]]:
    """Yield one batch with ``input`` float32 [60000, 1, 28, 28] and ``labels``.

    Raises FileNotFoundError where the data set is not installed.
    """
    with gzip.open(FOLDER / "train-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, SIZE, SIZE)
    with gzip.open(FOLDER / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    # The same packing as in calibration.npz, so that both give the same values bit by bit.
    with np.load(Path(__file__).parent / "calibration.npz") as archive:
        scale, offset = archive["input.scale_factor"], archive["input.add_offset"]
    yield {"input": pixels.astype(np.float32) * scale + offset, "labels": labels}


def vary(batch: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Per image: a horizontal flip, a shift by up to two pixels, one erased square.

    As in train.py. Background is the least value of a batch, a black pixel.
    """
    given = batch["input"]
    count, background = len(given), given.min()
    flipped = np.where((rng.random(count) < 0.5)[:, None, None, None], given[..., ::-1], given)
    margin = (LARGEST_SHIFT, LARGEST_SHIFT)
    padded = np.pad(flipped, ((0, 0), (0, 0), margin, margin), constant_values=background)
    dy, dx = rng.integers(0, 2 * LARGEST_SHIFT + 1, (2, count))
    grid = np.arange(SIZE)
    rows, columns = (dy[:, None] + grid)[:, :, None], (dx[:, None] + grid)[:, None, :]
    moved = padded[np.arange(count)[:, None, None], 0, rows, columns]
    y, x = rng.integers(0, SIZE, (2, count))
    inside_rows = np.abs(grid - y[:, None]) < ERASED // 2
    inside_columns = np.abs(grid - x[:, None]) < ERASED // 2
    erased = inside_rows[:, :, None] & inside_columns[:, None, :]
    return {"input": np.where(erased, background, moved)[:, None]}
