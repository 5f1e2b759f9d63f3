"""A weight as rows, one for each output, in the order in which the target's kernel sums.

ONNX Runtime's matrix products go along the contracted axis, the last but one of the second factor
or, where that is transposed, the last. Its convolutions read patches with
the channels last, so that they sum over channels first and then over the kernel's places; each
group of a grouped convolution has sums of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimton.transforms.quantize.encoding import Array
from trimton.transforms.quantize.sites import WeightSite


@dataclass(frozen=True)
class RowOrder:
    """How a weight of ``shape`` becomes [outputs, terms]: axes put in ``order`` and flattened.

    The first ``outputs`` of the axes in ``order`` make the outputs, the others the terms.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    outputs: int

    def rows(self, weight: Array) -> Array:
        """``weight`` as [outputs, terms]."""
        moved = weight.transpose(self.order)
        count = int(np.prod(moved.shape[: self.outputs]))
        return np.ascontiguousarray(moved).reshape(count, -1)

    def weight(self, rows: Array) -> Array:
        """The inverse of ``rows``: an array of ``shape``."""
        moved = rows.reshape([self.shape[axis] for axis in self.order])
        return np.ascontiguousarray(moved.transpose(np.argsort(self.order)))


def row_order(site: WeightSite, shape: tuple[int, ...]) -> RowOrder:
    """The order of the sums in which the weight of ``site`` takes part.

    Raises ValueError for an order of summation that is not known.
    """
    axes = tuple(range(len(shape)))
    match site.kernel:
        case "conv":
            return RowOrder(shape, (0, *axes[2:], 1), 1)
        case "matmul" | "matmul_transposed":
            contracted = axes[-2] if site.kernel == "matmul" else axes[-1]
            outputs = tuple(axis for axis in axes if axis != contracted)
            return RowOrder(shape, (*outputs, contracted), len(outputs))
        case None:
            first = () if site.axis is None else (site.axis % len(shape),)
            rest = tuple(axis for axis in axes if axis not in first)
            return RowOrder(shape, (*first, *rest), len(first))
        case unknown:
            raise ValueError(f"no kernel sums in the order {unknown!r}")
