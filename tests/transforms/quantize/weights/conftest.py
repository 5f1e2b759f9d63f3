"""What a kernel computes that adds pairs of products in 16 bits, number by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

Array = npt.NDArray[Any]
_INT16 = np.iinfo(np.int16)


def saturating_matmul(activations: Array, weights: Array) -> Array:
    """``activations`` (uint8 [rows, terms]) times ``weights`` (int8 [terms, outputs]) in int32.

    As MLAS does it: terms are filled up with zeros to a multiple of four; ``vpmaddubsw`` adds
    each two neighbouring products in saturating int16, ``vpmaddwd`` two of those in int32.
    """
    fill = -len(weights) % 4
    a = np.pad(activations.astype(np.int32), ((0, 0), (0, fill)))
    w = np.pad(weights.astype(np.int32), ((0, fill), (0, 0)))
    total = np.zeros((len(a), w.shape[1]), np.int32)
    for k in range(0, len(w), 2):
        pair = np.outer(a[:, k], w[k]) + np.outer(a[:, k + 1], w[k + 1])
        total += np.clip(pair, _INT16.min, _INT16.max)
    return total


def saturating_convolution(activations: Array, weights: Array, groups: int) -> Array:
    """A convolution without padding of uint8 [batch, channels, h, w] as ONNX Runtime does it.

    Patches have their channels last, and each group is a matrix product: [batch, outputs, h, w].
    """
    outputs, channels, *kernel = weights.shape
    patches = np.lib.stride_tricks.sliding_window_view(activations, kernel, axis=(2, 3))
    made = []
    for group in range(groups):
        mine = patches[:, group * channels : (group + 1) * channels]
        flat = mine.transpose(0, 2, 3, 4, 5, 1).reshape(-1, channels * np.prod(kernel))
        part = weights[group * outputs // groups : (group + 1) * outputs // groups]
        made.append(saturating_matmul(flat, part.transpose(2, 3, 1, 0).reshape(flat.shape[1], -1)))
    shape = (patches.shape[0], patches.shape[2], patches.shape[3], outputs)
    return np.concatenate(made, axis=1).reshape(shape).transpose(0, 3, 1, 2)


@pytest.fixture(scope="session")
def matmul_in_16_bits() -> Callable[[Array, Array], Array]:
    return saturating_matmul


@pytest.fixture(scope="session")
def convolution_in_16_bits() -> Callable[[Array, Array, int], Array]:
    return saturating_convolution
