"""Counting the values of one tensor, batch by batch."""

from __future__ import annotations

import sys
import threading

import numpy as np

from trimton.transforms.quantize.calibration.histogram import COUNTERS, Histogram
from trimton.transforms.quantize.encoding import Array

# Of a large sample every so-manieth value is counted. The number is prime, so that all channels,
# rows and columns of a feature map take part, whatever their widths are.
STRIDE = 17
# Samples of at most this many values are counted whole.
WHOLE = 4096
# Values that are read at once.
_BLOCK = 1 << 17


class Counter:
    """Counts values into a histogram; several threads may add at once.

    The extremes of every sample are those of all its values. Of a sample with more than 4,096
    values every ``stride``-th is counted, from the first, and stands for as many: which values
    they are depends neither on the batch nor on the order. With a stride of 1 all are counted.
    """

    def __init__(self, stride: int = STRIDE) -> None:
        self._stride = stride
        self._lock = threading.Lock()
        self._counters = np.zeros(COUNTERS, np.int64)
        self._extremes: dict[int, Array] = {}

    def add(self, values: Array, samples: int, batch: int, repeated: int = 0) -> int | None:
        """Count ``values`` (float, any shape) of ``samples`` samples, batch number ``batch``.

        The first ``repeated`` of them have been counted before and are left out. A tensor whose
        first axis is not that of the samples counts as one. Gives the number of the first sample
        that is counted here with a value that is not finite; then nothing is.
        """
        if values.size == 0:
            return None
        is_batched = values.ndim > 0 and len(values) == samples
        new = values[repeated:] if is_batched else values
        fresh = samples - repeated
        rows = np.ascontiguousarray(new, np.float32).reshape(fresh if is_batched else 1, -1)
        stride = 1 if rows.shape[1] <= WHOLE else self._stride
        extremes, patterns = _read(rows, stride)
        if not np.isfinite(extremes).all():
            return int(np.argmin(np.isfinite(extremes).all(axis=1)))
        with self._lock:
            np.add.at(self._counters, patterns, np.int64(stride))
            self._extremes[batch] = extremes if is_batched else np.repeat(extremes, fresh, axis=0)
        return None

    def histogram(self) -> Histogram:
        """What has been counted, the samples in the order of their batches."""
        extremes = [np.zeros((0, 2), np.float32)]
        extremes += [self._extremes[batch] for batch in sorted(self._extremes)]
        return Histogram(self._counters.copy(), np.concatenate(extremes))


def _read(rows: Array, stride: int) -> tuple[Array, Array]:
    """Extremes of ``rows`` float32 [samples, values], and every ``stride``-th value's pattern.

    Block by block, each small enough to stay in a core's cache: the memory is read once.
    """
    if rows.shape[1] <= _BLOCK:
        extremes = np.stack([rows.min(axis=1), rows.max(axis=1)], axis=1)
        return extremes, _upper_half(rows)[:, ::stride].reshape(-1).astype(np.intp)
    step = _BLOCK // stride * stride
    extremes = np.empty((len(rows), 2), np.float32)
    patterns = []
    for row, pair in zip(rows, extremes, strict=True):
        blocks = [row[start : start + step] for start in range(0, len(row), step)]
        ends = []
        for block in blocks:
            ends.append((block.min(), block.max()))
            patterns.append(_upper_half(block)[::stride].astype(np.intp))
        pair[:] = np.min([low for low, _ in ends]), np.max([high for _, high in ends])
    return extremes, np.concatenate(patterns)


def _upper_half(values: Array) -> Array:
    """The upper 16 bits of float32 ``values``, as a view."""
    halves = values.view(np.uint16)
    return halves[..., 1::2] if sys.byteorder == "little" else halves[..., ::2]
