"""Element types of ONNX and of torch, and arrays that pass between them without loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from trimton.core.errors import UnsupportedModelError

Array = npt.NDArray[Any]

TORCH_TYPES: Mapping[ir.DataType, torch.dtype] = {
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.BOOL: torch.bool,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT4: torch.int8,
    ir.DataType.INT64: torch.int64,
    ir.DataType.INT8: torch.int8,
    ir.DataType.UINT16: torch.uint16,
    ir.DataType.UINT32: torch.uint32,
    ir.DataType.UINT4: torch.uint8,
    ir.DataType.UINT64: torch.uint64,
    ir.DataType.UINT8: torch.uint8,
}

ONNX_TYPES: Mapping[torch.dtype, ir.DataType] = {
    torch_type: onnx_type
    for onnx_type, torch_type in TORCH_TYPES.items()
    if onnx_type not in (ir.DataType.INT4, ir.DataType.UINT4)
}

_SMALL_TYPES: Mapping[str, type[np.generic]] = {"int4": np.int8, "uint4": np.uint8}

# Types that torch stores but does not compute with.
STORED_ONLY = frozenset({torch.uint16, torch.uint32, torch.uint64})


def torch_type(dtype: ir.DataType, place: str) -> torch.dtype:
    """The type in torch; raises UnsupportedModelError, naming ``place``, where there is none."""
    if dtype not in TORCH_TYPES or dtype.bitwidth < 8 * TORCH_TYPES[dtype].itemsize:
        raise UnsupportedModelError(f"{place} is of type {dtype}, which torch lacks.")
    return TORCH_TYPES[dtype]


def to_tensor(array: Array) -> Tensor:
    """A copy of ``array`` as a tensor of the same shape.

    Raises UnsupportedModelError for texts.
    """
    if array.dtype.kind in "OSU":
        raise UnsupportedModelError("the model works on texts, which torch lacks.")
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    if array.dtype.name in _SMALL_TYPES:  # each element takes a byte
        array = array.astype(_SMALL_TYPES[array.dtype.name])
    plain = np.dtype(array.dtype.name)  # C has two names for one type; torch knows one
    return torch.from_numpy(np.array(array, order="C", copy=True).view(plain))


def to_array(tensor: Tensor) -> Array:
    """``tensor`` as an array that shares its memory where it can."""
    detached = tensor.detach().contiguous()
    if detached.dtype == torch.bfloat16:
        return detached.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return detached.numpy()
