"""Tensors as the KServe v2 protocol names and packs them.

Source: Open Inference Protocol, "Tensor Data Types" and the binary tensor data extension.
Numbers are little-endian, row-major; a BYTES element is its length (uint32) and its content;
BF16 is the upper half of a float32.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from trimton.core.errors import InfrastructureError, InputError

Array = npt.NDArray[Any]

# KServe datatype -> numpy type of the arrays that hold it. BF16 has no numpy type of its own:
# float32 carries its values exactly.
NUMPY_TYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(np.float32),
    "BYTES": np.dtype(np.object_),
}


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a served model; ``shape`` has None for a free dimension."""

    name: str
    datatype: str
    shape: tuple[int | None, ...]
    optional: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of arrays for this tensor; InputError for an unknown datatype."""
        try:
            return NUMPY_TYPES[self.datatype]
        except KeyError:
            raise InputError(
                f"tensor {self.name!r} has the datatype {self.datatype!r}, which is no KServe v2 "
                f"datatype (known: {', '.join(NUMPY_TYPES)})."
            ) from None


def pack(array: Array, datatype: str) -> bytes:
    """The binary form of ``array`` as ``datatype``."""
    if datatype == "BYTES":
        return _pack_strings(array)
    if datatype == "BF16":
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
        # Round to nearest even, as hardware does, instead of cutting the lower half off.
        rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return (rounded >> np.uint32(16)).astype("<u2").tobytes()
    dtype = NUMPY_TYPES[datatype].newbyteorder("<")
    return np.ascontiguousarray(array, dtype).tobytes()


def unpack(data: memoryview, datatype: str, shape: tuple[int, ...]) -> Array:
    """The array of ``shape`` that ``data`` holds; InfrastructureError if the sizes disagree."""
    try:
        if datatype == "BYTES":
            return _unpack_strings(data, shape)
        if datatype == "BF16":
            bits = np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)
            return bits.view(np.float32).reshape(shape)
        return np.frombuffer(data, NUMPY_TYPES[datatype].newbyteorder("<")).reshape(shape)
    except (ValueError, KeyError, struct.error) as error:
        raise InfrastructureError(
            f"the server answered with {len(data)} bytes for a {datatype} tensor of shape "
            f"{list(shape)}, which does not fit."
        ) from error


def _pack_strings(array: Array) -> bytes:
    parts = []
    for element in np.asarray(array, dtype=object).ravel():
        content = element if isinstance(element, bytes) else str(element).encode()
        parts.append(struct.pack("<I", len(content)))
        parts.append(content)
    return b"".join(parts)


def _unpack_strings(data: memoryview, shape: tuple[int, ...]) -> Array:
    elements = np.empty(prod(shape), dtype=object)
    offset = 0
    for index in range(len(elements)):
        (length,) = struct.unpack_from("<I", data, offset)
        offset += 4
        content = bytes(data[offset : offset + length])
        if len(content) != length:
            raise ValueError("truncated string tensor")
        elements[index] = content
        offset += length
    if offset != len(data):
        raise ValueError("bytes left over after the string tensor")
    return elements.reshape(shape)
