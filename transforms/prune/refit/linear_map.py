"""A linear layer as a matrix product, and the adjoint of how it gathers what it multiplies.

Y = rows(x) W. The adjoint of ``rows`` (col2im for a convolution) brings an error of Y back to x,
which is what a least-squares fit of an earlier layer needs. Features are ordered by the kernel's
places first, and by channels within: so all channels of a place are copied at once.
"""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np

from trimton.transforms.graph.edit import Array
from trimton.transforms.prune.refit.window import Window, window_of
from trimton.transforms.prune.ties import Layer


def has_map(layer: Layer) -> bool:
    """Whether ``layer``, which is linear, is a matrix product or a convolution of one group."""
    is_convolution = layer.node.op_type == "Conv"
    is_product = layer.node.op_type in ("Gemm", "MatMul")
    return is_product or (is_convolution and layer.node.attributes.get_int("group", 1) == 1)


class LinearMap:
    """The rows of ``layer``, which has a map, for samples of shape ``shape`` each."""

    def __init__(self, layer: Layer, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._window: Window | None = None
        if layer.node.op_type == "Conv":
            self._window = window_of(layer, shape[1:])

    def rows(self, array: Array) -> Array:
        """What each place reads: [samples, ...] -> [samples * places, features]."""
        if self._window is None:
            return array.reshape(-1, array.shape[-1])
        padded = np.pad(np.moveaxis(array, 1, -1), ((0, 0), *self._window.pads, (0, 0)))
        samples, channels = array.shape[:2]
        offsets = self._offsets()
        places = self._places()
        made = np.empty((samples, *places, len(offsets), channels), array.dtype)
        for number, offset in enumerate(offsets):
            made[..., number, :] = padded[offset]
        return made.reshape(samples * prod(places), len(offsets) * channels)

    def adjoint(self, rows: Array) -> Array:
        """The transposed map of ``rows``: every feature is added where it was read."""
        if self._window is None:
            return rows.reshape(-1, *self._shape)
        offsets, places, pads = self._offsets(), self._places(), self._window.pads
        channels, sizes = self._shape[0], self._shape[1:]
        parts = rows.reshape(-1, *places, len(offsets), channels)
        padded = [low + size + high for size, (low, high) in zip(sizes, pads, strict=True)]
        made = np.zeros((len(parts), *padded, channels), rows.dtype)
        for number, offset in enumerate(offsets):
            made[offset] += parts[..., number, :]
        inner = (slice(low, low + size) for size, (low, _) in zip(sizes, pads, strict=True))
        return np.moveaxis(made[(slice(None), *inner)], -1, 1)

    def arranged(self, matrix: Array) -> Array:
        """The layer's weight_matrix [features, outputs] in the order of ``rows``."""
        return self._reordered(matrix, (self._channels, -1))

    def restored(self, matrix: Array) -> Array:
        """The inverse of ``arranged``."""
        return self._reordered(matrix, (-1, self._channels))

    def by_channel(self, matrix: Array) -> Array:
        """``matrix`` [features, outputs] in the order of ``rows`` as [channels, all else]."""
        return self.restored(matrix).reshape(self._channels, -1)

    def values(self, rows: Array) -> Array:
        """Rows of the layer's output in its own shape."""
        if self._window is None:
            return rows.reshape(-1, *self._shape[:-1], rows.shape[-1])
        return np.moveaxis(rows.reshape(-1, *self._places(), rows.shape[-1]), -1, 1)

    def value_rows(self, values: Array) -> Array:
        """The inverse of ``values``."""
        moved = values if self._window is None else np.moveaxis(values, 1, -1)
        return moved.reshape(-1, moved.shape[-1])

    @property
    def _channels(self) -> int:
        return self._shape[-1 if self._window is None else 0]

    def _reordered(self, matrix: Array, sizes: tuple[int, int]) -> Array:
        """``matrix`` [features, outputs] with the two parts of its features exchanged."""
        outputs = matrix.shape[1]
        return matrix.reshape(*sizes, outputs).swapaxes(0, 1).reshape(-1, outputs)

    def _places(self) -> tuple[int, ...]:
        """The spatial size of the output."""
        if self._window is None:
            raise ValueError("a matrix product has no places")
        w = self._window
        return tuple(
            (low + size + high - (kernel - 1) * dilation - 1) // stride + 1
            for size, (low, high), kernel, stride, dilation in zip(
                self._shape[1:], w.pads, w.kernel, w.strides, w.dilations, strict=True
            )
        )

    def _offsets(self) -> list[tuple[slice, ...]]:
        """For each place of the kernel what it sees of a padded input [samples, ..., channels]."""
        if self._window is None:
            raise ValueError("a matrix product has no kernel")
        w, places = self._window, self._places()
        return [
            (
                slice(None),
                *(
                    slice(at * dilation, at * dilation + (count - 1) * stride + 1, stride)
                    for at, count, stride, dilation in zip(
                        position, places, w.strides, w.dilations, strict=True
                    )
                ),
            )
            for position in product(*map(range, w.kernel))
        ]
