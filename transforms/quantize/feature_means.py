"""The means of what layers multiply their weights with, over all samples and places.

A convolution is linear: the mean over its patches follows from the sum of its input over the
samples, so that patches are cut out of that sum once, not of every sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.taps import Feed, Taps
from trimton.transforms.linear.layers import LinearLayer
from trimton.transforms.prune.refit.window import window_of
from trimton.transforms.quantize.calibration.feeds import repeated_in, samples_in


def feature_means(
    model: ir.Model, layers: Sequence[LinearLayer], batches: Iterable[Feed]
) -> Mapping[str, Array]:
    """The mean of every feature, [groups, features], of each of ``layers`` by its name.

    Features are in the order of LinearLayer.matrices. Memory does not grow with the samples.
    Raises InputError where ``model`` cannot be run on ``batches``.
    """
    taps = Taps(model, [layer.read for layer in layers])
    means = {layer.name: _Mean(layer) for layer in layers}
    for feed in batches:
        samples, repeated = samples_in(feed), repeated_in(feed)
        values = taps(feed)
        for layer in layers:
            read = values[layer.read]
            means[layer.name].add(read[repeated:] if len(read) == samples else read)
    return {name: mean.features() for name, mean in means.items()}


@dataclass
class _Mean:
    """A running mean. ``image`` is the sum over ``images`` inputs of one shape, not yet cut into
    patches; ``total`` [features] is the sum over ``rows`` patches or rows that were."""

    layer: LinearLayer
    image: Array | None = None
    images: int = 0
    total: Array = field(default_factory=lambda: np.zeros(()))
    rows: int = 0

    def add(self, read: Array) -> None:
        """Take in the input of one batch."""
        if not self.layer.kernel:
            flat = read.reshape(-1, read.shape[-1])
            self._count(flat.sum(axis=0, dtype=np.float64), len(flat))
            return
        image = read.sum(axis=0).astype(np.float64)
        if self.image is not None and self.image.shape == image.shape:
            self.image += image
        else:
            self._cut()
            self.image = image
        self.images += len(read)

    def features(self) -> Array:
        """The mean of all that was added, [groups, features]; zeros where nothing was."""
        self._cut()
        groups, features, _ = self.layer.shape
        mean = np.broadcast_to(self.total / max(self.rows, 1), (groups * features,))
        return mean.reshape(groups, features)

    def _cut(self) -> None:
        """Cut the patches of the convolution out of the sum."""
        if self.image is None:
            return
        window = window_of(self.layer.layer, self.image.shape[1:])
        axes = tuple(range(1, self.image.ndim))
        spans = [(k - 1) * d + 1 for k, d in zip(window.kernel, window.dilations, strict=True)]
        padded = np.pad(self.image, ((0, 0), *window.pads))
        patches = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=axes)
        steps = (slice(None, None, step) for step in (*window.strides, *window.dilations))
        patches = patches[(slice(None), *steps)]
        places = int(np.prod([patches.shape[axis] for axis in axes]))
        self._count(patches.sum(axis=axes).reshape(-1), places * self.images)
        self.image, self.images = None, 0

    def _count(self, total: Array, rows: int) -> None:
        self.total = self.total + total
        self.rows += rows
