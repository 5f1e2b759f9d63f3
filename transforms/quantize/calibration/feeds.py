"""Samples as feeds: what a model takes at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.inputs import input_specs

Feed = Mapping[str, Array]


class OverlappingFeed(dict[str, Array]):
    """A feed whose first samples, ``repeated`` of them, were in the feed before it, too."""

    def __init__(self, arrays: Mapping[str, Array], repeated: int) -> None:
        super().__init__(arrays)
        self.repeated = repeated


# Large enough to fill the kernels, small enough that what they make stays in the caches.
BATCH = 4


def feeds(model: ir.Model, samples: Mapping[str, Array], batch: int = BATCH) -> Iterator[Feed]:
    """``samples`` (arrays by input name, first axis = samples), ``batch`` at once.

    A model with a fixed batch gets that many; what is left over is filled up with samples from
    before (see OverlappingFeed), so that none is dropped. Raises InputError where an input has no
    array, or where there are too few samples.
    """
    specs = [spec for spec in input_specs(model) if spec.name in samples or not spec.optional]
    for spec in specs:
        if spec.name not in samples:
            raise InputError(f"the samples given have no array for the input {spec.name!r}.")
    count = min((len(samples[spec.name]) for spec in specs), default=0)
    fixed = max((spec.shape[0] or 0 for spec in specs if spec.shape), default=0)
    size = fixed or batch
    if count < max(1, fixed):
        raise InputError(f"the samples given are {count}; the model takes {size} at once.")
    for start in range(0, count, size):
        first = min(start, count - size) if fixed else start
        arrays = {
            spec.name: np.ascontiguousarray(samples[spec.name][first : min(first + size, count)])
            for spec in specs
        }
        yield OverlappingFeed(arrays, start - first) if first < start else arrays


def repeated_in(feed: Feed) -> int:
    """How many samples at the start of ``feed`` were in the feed before it, too."""
    return feed.repeated if isinstance(feed, OverlappingFeed) else 0


def samples_in(feed: Feed) -> int:
    """The number of samples in ``feed``: the first axis of its first array that has one."""
    return next((len(array) for array in feed.values() if np.ndim(array) > 0), 1)
