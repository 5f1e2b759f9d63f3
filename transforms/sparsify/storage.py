"""What zeros save where they are not stored: packed by their pattern, or compressed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from trimton.transforms.graph.tensors import all_tensors
from trimton.transforms.linear.layers import LinearLayer
from trimton.transforms.sparsify.pattern import Pattern

_LEVEL = 6


@dataclass(frozen=True)
class Stored:
    """Bytes of the weights of the sparse layers, as they are and packed by their pattern."""

    dense_bytes: int
    packed_bytes: int


def packed(layers: Sequence[LinearLayer], pattern: Pattern) -> Stored:
    """The values that stay and the bits that say where: the format of sparse tensor cores for
    N:M, a bit map for unstructured zeros."""
    dense = bits = 0
    for layer in layers:
        tensor = layer.layer.weight.const_value
        if tensor is None:
            continue
        dense += tensor.nbytes
        kept = int((tensor.numpy() != 0).sum())
        bits += kept * tensor.dtype.bitwidth + pattern.index_bits(tensor.size)
    return Stored(dense, -(-bits // 8))


def deflated_bytes(model: ir.Model) -> int:
    """The size of all constants after zlib (level 6), as in a compressed archive or image."""
    squeezer = zlib.compressobj(_LEVEL)
    return sum(len(squeezer.compress(tensor.tobytes())) for tensor in all_tensors(model)) + len(
        squeezer.flush()
    )
