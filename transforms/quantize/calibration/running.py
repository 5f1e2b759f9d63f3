"""One pass over the samples: the float model runs, and what it computes is counted at once.

Memory does not grow with the samples: a batch is gone before the next one comes, and a tensor
keeps its counters and two numbers for each sample.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.taps import Feed, Taps
from trimton.transforms.quantize.calibration.counter import STRIDE, Counter
from trimton.transforms.quantize.calibration.feeds import repeated_in, samples_in
from trimton.transforms.quantize.calibration.histogram import Histogram
from trimton.transforms.quantize.sites import ActivationSite

# Batches that are computed side by side, each by its share of the cores.
_SIDE_BY_SIDE = 4

Progress = Callable[[int], None]


def calibrate(
    model: ir.Model,
    sites: Sequence[ActivationSite],
    batches: Iterable[Feed],
    *,
    stride: int = STRIDE,
    progress: Progress | None = None,
) -> dict[str, Histogram]:
    """The histogram of every measured value of ``sites``, by its name.

    ``batches`` are feeds of the main graph of ``model``, of any sizes. Extremes are exact; of
    large tensors every ``stride``-th value is counted (1: all). ``progress`` is called with the
    number of samples done so far. Raises InputError for no samples, for samples that the model
    cannot be run on, and for NaN or Inf in a sample or in a value; UnsupportedModelError where
    ONNX Runtime cannot run the model.
    """
    names = list(dict.fromkeys(n for site in sites if site.source is None for n in site.measured))
    workers = min(_SIDE_BY_SIDE, _cores())
    taps = Taps(model, names, threads=max(1, _cores() // workers))
    counters = {name: Counter(stride) for name in names}

    def count(feed: Feed, batch: int, first: int) -> int:
        samples, repeated = samples_in(feed), repeated_in(feed)
        _require_finite(feed, samples, first - repeated)
        for name, values in taps(feed).items():
            if (bad := counters[name].add(values, samples, batch, repeated)) is not None:
                raise InputError(
                    f"the value {name!r} of the model is NaN or infinite on sample {first + bad}; "
                    f"leave that sample out, or keep what computes the value in float."
                )
        return samples - repeated

    done = 0
    for samples in _side_by_side(count, batches, workers):
        done += samples
        if progress is not None:
            progress(done)
    if not done:
        raise InputError("no samples to calibrate with; give at least one.")
    return {name: counter.histogram() for name, counter in counters.items()}


def _side_by_side(
    count: Callable[[Feed, int, int], int], batches: Iterable[Feed], workers: int
) -> Iterator[int]:
    """Numbers of samples counted, batch by batch; no more batches than workers are in memory."""
    with ThreadPoolExecutor(workers) as pool:
        running: deque[Future[int]] = deque()
        first = 0
        try:
            for batch, feed in enumerate(batches):
                running.append(pool.submit(count, feed, batch, first))
                first += samples_in(feed) - repeated_in(feed)
                if len(running) >= workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _require_finite(feed: Mapping[str, Array], samples: int, first: int) -> None:
    for name, array in feed.items():
        if np.asarray(array).dtype.kind != "f" or np.isfinite(array).all():
            continue
        is_batched = np.ndim(array) > 0 and len(array) == samples
        rows = np.isfinite(array).reshape(samples if is_batched else 1, -1).all(axis=1)
        raise InputError(
            f"input {name!r} holds NaN or Inf (first in sample {first + int(np.argmin(rows))})."
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
