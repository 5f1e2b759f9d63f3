"""A number for every index of every axis of every value: what ties and cuts are written in.

A value of shape [N, 64, 32, 32] has one range of 64 numbers for its channels, and one of 32 for
each spatial axis; a free dimension has none. A model has as many numbers as its axes are long
together, which is far less than it has weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trimton.transforms.graph.shapes import known_dims

Indices = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

NO_INDICES: Indices = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Axis:
    """One axis of one value: ``number`` counts all axes, its indices start at ``start``."""

    value: ir.Value
    position: int
    number: int
    start: int
    size: int

    @property
    def indices(self) -> Indices:
        """The numbers of its indices, [size]."""
        return np.arange(self.start, self.start + self.size, dtype=np.int64)


class IndexSpace:
    """The axes of known size of all values of one graph; subgraphs are left out."""

    def __init__(self, values: Iterable[ir.Value]) -> None:
        self._axes: dict[tuple[int, int], Axis] = {}
        start = 0
        for value in values:
            for position, size in enumerate(known_dims(value) or ()):
                key = (id(value), position)
                if not size or key in self._axes:
                    continue
                self._axes[key] = Axis(value, position, len(self._axes), start, size)
                start += size
        self.size = start

    @property
    def axes(self) -> tuple[Axis, ...]:
        """All axes, in the order of their numbers."""
        return tuple(self._axes.values())

    def axis(self, value: ir.Value | None, position: int) -> Axis | None:
        """The axis, counted from the end where negative; None where its size is not known."""
        dims = known_dims(value)
        if value is None or dims is None or not -len(dims) <= position < len(dims):
            return None
        return self._axes.get((id(value), position % len(dims)))

    def indices(self, value: ir.Value | None, position: int) -> Indices:
        """The numbers of the indices of one axis; empty where its size is not known."""
        axis = self.axis(value, position)
        return NO_INDICES if axis is None else axis.indices

    def axis_numbers(self) -> Indices:
        """For every index the number of its axis, [size]."""
        return np.repeat(
            np.arange(len(self._axes), dtype=np.int64),
            [axis.size for axis in self._axes.values()],
        )


def graph_values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Inputs, weights and what nodes make, in this order; subgraphs are left out."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from (output for output in node.outputs if output.name)
