"""The teacher: its outputs, and values inside it, for any number of samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.inputs import input_specs
from trimton.transforms.graph.taps import Taps

# Large enough to fill the kernels, small enough that what they make stays in the caches.
_BATCH = 64


class Answers:
    """What ``model`` answers in ONNX Runtime: the values ``names`` for samples.

    ``threads`` compute one operator. Raises UnsupportedModelError where ONNX Runtime cannot run
    the model.
    """

    def __init__(self, model: ir.Model, names: Iterable[str], *, threads: int | None) -> None:
        self._taps = Taps(model, names, threads=threads)
        self._fixed = fixed_batch(model)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The values for ``inputs`` (first axis = samples), by name, as many as there are samples.

        Raises InputError where the samples do not suit the model, UnsupportedModelError for a
        value whose first axis is not that of the samples.
        """
        count = len(next(iter(inputs.values())))
        parts: dict[str, list[Array]] = {}
        for chosen, new in _parts(count, self._fixed):
            made = self._taps({name: array[chosen] for name, array in inputs.items()})
            for name, array in made.items():
                if array.ndim == 0 or len(array) != len(chosen):
                    raise UnsupportedModelError(
                        f"value {name!r} has shape {array.shape} for {len(chosen)} samples; its "
                        "first axis must be that of the samples."
                    )
                parts.setdefault(name, []).append(array[len(array) - new :])
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def fixed_batch(model: ir.Model) -> int | None:
    """How many samples ``model`` takes at once; None where that is free."""
    sizes = [spec.shape[0] for spec in input_specs(model) if spec.shape and not spec.optional]
    return next((size for size in sizes if size is not None), None)


def _parts(count: int, fixed: int | None) -> Iterator[tuple[Sequence[int] | Array, int]]:
    """Indices of samples that run at once, and how many of them, the last ones, are new.

    A fixed batch is filled up with samples from before, over and over where there are too few.
    """
    size = fixed or _BATCH
    for start in range(0, count, size):
        new = min(size, count - start)
        filler = np.arange(start + new - size, start) if fixed else np.arange(start, start)
        yield np.concatenate([filler % count, np.arange(start, start + new)]), new
